/*
 * freedoms.c - what need not or cannot agree between a processor and an engine, in one table, with
 * the reason. The Intel SDM's volume 2 is meant where an instruction is named ("SHL": its page).
 */
#include <stdio.h>

#include "diff.h"

#define CF X86_FL_CF
#define PF X86_FL_PF
#define AF X86_FL_AF
#define ZF X86_FL_ZF
#define SF X86_FL_SF
#define OF X86_FL_OF
#define AC X86_FL_AC

enum kind {
    UNDEFINED,     /* these flags, always */
    UNDEFINED_N1,  /* these if the count is not 0; and OF if it is not 1, either */
    FAULT_ADDRESS, /* which byte of the operand faults first; flags: AC if #AC is free, too */
    PARTIAL_LOAD,  /* the same; and what is loaded before a fault, and which fault is first */
    EXCLUDED,      /* not compared at all */
};

struct freedom {
    ZydisMnemonic mnemonic;
    enum kind kind;
    uint32_t flags;
    const char *why; /* the manual's reference */
};

#define M(name) ZYDIS_MNEMONIC_##name

static const struct freedom freedoms[] = {
    /* ---- flags ---- */
    {M(AAA), UNDEFINED, OF | SF | ZF | PF, "SDM 2, AAA"},
    {M(AAS), UNDEFINED, OF | SF | ZF | PF, "SDM 2, AAS"},
    {M(AAD), UNDEFINED, OF | AF | CF, "SDM 2, AAD"},
    {M(AAM), UNDEFINED, OF | AF | CF, "SDM 2, AAM"},
    {M(DAA), UNDEFINED, OF, "SDM 2, DAA"},
    {M(DAS), UNDEFINED, OF, "SDM 2, DAS"},
    {M(AND), UNDEFINED, AF, "SDM 2, AND"},
    {M(OR), UNDEFINED, AF, "SDM 2, OR"},
    {M(XOR), UNDEFINED, AF, "SDM 2, XOR"},
    {M(TEST), UNDEFINED, AF, "SDM 2, TEST"},
    {M(ANDN), UNDEFINED, AF | PF, "SDM 2, ANDN"},
    {M(BEXTR), UNDEFINED, AF | SF | PF, "SDM 2, BEXTR"},
    {M(BLSI), UNDEFINED, AF | PF, "SDM 2, BLSI"},
    {M(BLSMSK), UNDEFINED, AF | PF, "SDM 2, BLSMSK"},
    {M(BLSR), UNDEFINED, AF | PF, "SDM 2, BLSR"},
    {M(BZHI), UNDEFINED, AF | PF, "SDM 2, BZHI"},
    {M(BSF), UNDEFINED, CF | OF | SF | AF | PF, "SDM 2, BSF"},
    {M(BSR), UNDEFINED, CF | OF | SF | AF | PF, "SDM 2, BSR"},
    {M(LZCNT), UNDEFINED, OF | SF | AF | PF, "SDM 2, LZCNT"},
    {M(TZCNT), UNDEFINED, OF | SF | AF | PF, "SDM 2, TZCNT"},
    {M(BT), UNDEFINED, OF | SF | AF | PF, "SDM 2, BT"},
    {M(BTS), UNDEFINED, OF | SF | AF | PF, "SDM 2, BTS"},
    {M(BTR), UNDEFINED, OF | SF | AF | PF, "SDM 2, BTR"},
    {M(BTC), UNDEFINED, OF | SF | AF | PF, "SDM 2, BTC"},
    {M(DIV), UNDEFINED, CF | OF | SF | ZF | AF | PF, "SDM 2, DIV"},
    {M(IDIV), UNDEFINED, CF | OF | SF | ZF | AF | PF, "SDM 2, IDIV"},
    {M(MUL), UNDEFINED, SF | ZF | AF | PF, "SDM 2, MUL"},
    {M(IMUL), UNDEFINED, SF | ZF | AF | PF, "SDM 2, IMUL"},
    {M(ROL), UNDEFINED_N1, 0, "SDM 2, RCL/RCR/ROL/ROR: OF"},
    {M(ROR), UNDEFINED_N1, 0, "SDM 2, RCL/RCR/ROL/ROR: OF"},
    {M(RCL), UNDEFINED_N1, 0, "SDM 2, RCL/RCR/ROL/ROR: OF"},
    {M(RCR), UNDEFINED_N1, 0, "SDM 2, RCL/RCR/ROL/ROR: OF"},
    {M(SHL), UNDEFINED_N1, AF, "SDM 2, SAL/SAR/SHL/SHR: OF; AF if the count is not 0"},
    {M(SHR), UNDEFINED_N1, AF, "SDM 2, SAL/SAR/SHL/SHR: OF; AF if the count is not 0"},
    {M(SAR), UNDEFINED_N1, AF, "SDM 2, SAL/SAR/SHL/SHR: OF; AF if the count is not 0"},
    {M(SHLD), UNDEFINED_N1, AF, "SDM 2, SHLD: OF; AF if the count is not 0"},
    {M(SHRD), UNDEFINED_N1, AF, "SDM 2, SHRD: OF; AF if the count is not 0"},

    /* ---- operands of several parts ---- */
    {M(FLDENV), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FNSTENV), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FRSTOR), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FNSAVE), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FXSAVE), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FXSAVE64), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FXRSTOR), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(FXRSTOR64), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVE), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVE64), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVEOPT), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVEOPT64), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVEC), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XSAVEC64), FAULT_ADDRESS, AC, "several accesses in any order; #AC: SDM 2, FXSAVE"},
    {M(XRSTOR), PARTIAL_LOAD, AC, "the order is not defined (SDM 1, 13.8); #AC: SDM 2, FXSAVE"},
    {M(XRSTOR64), PARTIAL_LOAD, AC, "the order is not defined (SDM 1, 13.8); #AC: SDM 2, FXSAVE"},
    {M(MASKMOVQ), FAULT_ADDRESS, AC, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(MASKMOVDQU), FAULT_ADDRESS, AC, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(VMASKMOVDQU), FAULT_ADDRESS, AC, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(VMASKMOVPS), FAULT_ADDRESS, 0, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(VMASKMOVPD), FAULT_ADDRESS, 0, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(VPMASKMOVD), FAULT_ADDRESS, 0, "element by element, in any order (SDM 2, VMASKMOV)"},
    {M(VPMASKMOVQ), FAULT_ADDRESS, 0, "element by element, in any order (SDM 2, VMASKMOV)"},

    /* ---- what depends on the machine, not on the operands ---- */
    {M(CPUID), EXCLUDED, 0, "the processor model is Sosia's own"},
    {M(RDTSC), EXCLUDED, 0, "time"},
    {M(RDTSCP), EXCLUDED, 0, "time"},
    {M(RDPMC), EXCLUDED, 0, "CR4.PCE and the counters are the host system's"},
    {M(RDPID), EXCLUDED, 0, "the number of the host's processor"},
    {M(RDRAND), EXCLUDED, 0, "random"},
    {M(RDSEED), EXCLUDED, 0, "random"},
    {M(XGETBV), EXCLUDED, 0, "XCR0 is the host system's"},

    /* ---- what the host system does not let a program see ---- */
    {M(SYSCALL), EXCLUDED, 0, "calls the host system"},
    {M(SYSENTER), EXCLUDED, 0, "calls the host system"},
    {M(SGDT), EXCLUDED, 0, "Linux emulates it when UMIP is on"},
    {M(SIDT), EXCLUDED, 0, "Linux emulates it when UMIP is on"},
    {M(SLDT), EXCLUDED, 0, "Linux emulates it when UMIP is on"},
    {M(STR), EXCLUDED, 0, "Linux emulates it when UMIP is on"},
    {M(SMSW), EXCLUDED, 0, "Linux emulates it when UMIP is on"},

    /* ---- far transfers of control have tests of their own (tests/unit/test_x86_sys.c) ---- */
    {M(IRET), EXCLUDED, 0, "far transfer"},
    {M(IRETD), EXCLUDED, 0, "far transfer"},
    {M(IRETQ), EXCLUDED, 0, "far transfer"},
};

/* Instruction sets that the processor model offers; of others the host may have more. */
static bool set_offered(ZydisISASet s)
{
    switch (s) {
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_CLFLUSHOPT:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_CLWB:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_INVPCID:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_RDWRFSGS:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SMAP:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
        return true;
    default:
        return false;
    }
}

static const struct freedom *find(ZydisMnemonic m)
{
    for (unsigned n = 0; n < ARRAY_LEN(freedoms); n++)
        if (freedoms[n].mnemonic == m)
            return &freedoms[n];
    return NULL;
}

const char *freedom_excluded(const struct insn *i)
{
    const struct freedom *f = find(i->zi.mnemonic);
    if (f && f->kind == EXCLUDED)
        return f->why;
    if (i->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        i->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return "encoding not in the processor model";
    if (!set_offered(i->zi.meta.isa_set))
        return "instruction set not in the processor model";
    if (i->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return "far transfer";
    if (i->zi.mnemonic == M(INT) && (uint8_t)i->op[0].imm.value.u == 0x80)
        return "calls the host system";
    return NULL;
}

static unsigned shift_count(const struct insn *i, const struct input *in)
{
    unsigned last = i->zi.operand_count_visible - 1u;
    const ZydisDecodedOperand *o = &i->op[last];
    unsigned mask = i->op[0].size == 64 ? 63 : 31;
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return (unsigned)o->imm.value.u & mask;
    return (unsigned)in->r.gpr[X86_RCX] & mask;
}

uint32_t freedom_flags(const struct insn *i, const struct input *in)
{
    const struct freedom *f = find(i->zi.mnemonic);
    if (!f || f->kind == EXCLUDED || f->kind == FAULT_ADDRESS || f->kind == PARTIAL_LOAD)
        return 0;
    if (f->kind == UNDEFINED)
        return f->flags;
    unsigned n = shift_count(i, in), size = i->op[0].size;
    if (n == 0)
        return 0;
    uint32_t free = f->flags | (n == 1 ? 0 : OF);
    /* CF is undefined beyond the operand's width, but not SAR's. */
    if (f->flags && n >= size && i->zi.mnemonic != M(SAR))
        free |= CF;
    if ((i->zi.mnemonic == M(SHLD) || i->zi.mnemonic == M(SHRD)) && n > size)
        free |= CF | OF | SF | ZF | PF;
    return free;
}

bool freedom_alignment(const struct insn *i)
{
    const struct freedom *f = find(i->zi.mnemonic);
    return f && (f->kind == FAULT_ADDRESS || f->kind == PARTIAL_LOAD) && (f->flags & AC);
}

bool freedom_fault_address(const struct insn *i)
{
    const struct freedom *f = find(i->zi.mnemonic);
    return f && (f->kind == FAULT_ADDRESS || f->kind == PARTIAL_LOAD);
}

bool freedom_partial_load(const struct insn *i)
{
    const struct freedom *f = find(i->zi.mnemonic);
    return f && f->kind == PARTIAL_LOAD;
}

/* SDM 2, VGATHERDPS: a trap that is pending when an element faults comes instead of the fault. */
bool freedom_trap(const struct insn *i)
{
    return i->zi.meta.category == ZYDIS_CATEGORY_AVX2GATHER;
}

/* AMD's processors store zeros for FOP, FIP and FDP in FXSAVE's and XSAVE's images, the system's
 * for a signal handler included, unless an error is pending (APM 2, 11.4.4). What they really are
 * is compared in tests/unit/test_x86_simd.c. */
static bool hides_pointers(void)
{
    static int hidden = -1;
    if (hidden < 0) {
        static struct x86_xsave in, out;
        in.fcw = 0x37f;
        in.mxcsr = 0x1f80;
        in.fip = 1;
        __asm__ volatile("fxrstor64 %1; fxsave64 %0; fninit" : "=m"(out) : "m"(in));
        hidden = !out.fip;
    }
    return hidden;
}

bool freedom_pointers(const struct x86_xsave *nat)
{
    return !(nat->fsw & 0x80) && hides_pointers();
}

void freedom_print(void)
{
    static const char *const kinds[] = {"undefined", "undefined", "fault", "fault", "excluded"};
    for (unsigned n = 0; n < ARRAY_LEN(freedoms); n++) {
        const struct freedom *f = &freedoms[n];
        uint32_t u = f->flags | (f->kind == UNDEFINED_N1 ? OF : 0);
        printf("%-10s %-9s %s%s%s%s%s%s%s%s\n", ZydisMnemonicGetString(f->mnemonic), kinds[f->kind],
               u & OF ? "OF " : "", u & SF ? "SF " : "", u & ZF ? "ZF " : "", u & AF ? "AF " : "",
               u & PF ? "PF " : "", u & CF ? "CF " : "", u & AC ? "#AC " : "", f->why);
    }
}
