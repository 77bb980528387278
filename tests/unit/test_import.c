/*
 * test_import.c - descriptions of VMs by other programs: the spec that they become, and what is
 * told of the rest.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "catalog/import.h"

typedef int parser(struct import *m, const char *text, size_t len, struct error *e);

/* The spec's text behind its comment; it is one that can be read again. */
static char *spec_of(const struct import *m)
{
    struct error e = {0};
    struct spec s;
    char *text = NULL;
    assert_int_equal(import_spec_text(m, "web", &text, &e), 0);
    if (spec_load_text("/x/vm.yaml", text, strlen(text), &s, &e) < 0)
        fail_msg("%s\n%s", text, e.msg);
    spec_fini(&s);
    char *body = strdup(strstr(text, "edit web\n") + 9);
    free(text);
    return body;
}

static const struct import_note *note_on(const struct import_notes *l, const char *from)
{
    for (unsigned i = 0; i < l->n; i++)
        if (strcmp(l->note[i].from, from) == 0)
            return &l->note[i];
    return NULL;
}

static void expect_note(const struct import_notes *l, const char *from, const char *part)
{
    const struct import_note *note = note_on(l, from);
    if (!note || !strstr(note->text, part))
        fail_msg("%s: expected \"%s\", got \"%s\"", from, part, note ? note->text : "nothing");
}

static void parse(parser *p, struct import *m, const char *text, const char *spec)
{
    struct error e = {0};
    if (p(m, text, strlen(text), &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    char *made = spec_of(m);
    assert_string_equal(made, spec);
    free(made);
}

static void refuse(parser *p, const char *text, size_t len, int code, const char *part)
{
    struct error e = {0};
    struct import m;
    assert_int_equal(p(&m, text, len, &e), code);
    if (!strstr(e.msg, part))
        fail_msg("expected \"%s\", got \"%s\"", part, e.msg);
    import_fini(&m);
}

/* ---- VMware ---- */

static const char vmx_head[] = ".encoding = \"UTF-8\"\n"
                               "config.version = \"8\"\n"
                               "virtualHW.version = \"16\"\n";

static void vmx_whole(void **state)
{
    struct import m;
    parse(import_vmx, &m,
          "#!/usr/bin/vmware\n"
          ".encoding = \"UTF-8\"\n"
          "config.version = \"8\"\r\n"
          "virtualHW.version = \"19\"\n"
          "DisplayName = \"Mail |22old|22\"\n"
          "guestOS = \"debian11-64\"\n"
          "memsize = \"2048\"\n"
          "numvcpus = \"4\"\n"
          "cpuid.coresPerSocket = \"2\"\n"
          "firmware = \"bios\"\n"
          "scsi0.present = \"TRUE\"\n"
          "scsi0.virtualDev = \"lsilogic\"\n"
          "scsi0:1.present = \"TRUE\"\n"
          "scsi0:1.fileName = \"data \\ two.vmdk\"\n"
          "scsi0:0.fileName = \"mail.vmdk\"\n"
          "scsi0:0.present = \"TRUE\"\n"
          "scsi0:2.fileName = \"gone.vmdk\"\n"
          "scsi0:2.present = \"FALSE\"\n"
          "nvme0:0.present = \"TRUE\"\n"
          "nvme0:0.fileName = \"/vm/fast.vmdk\"\n"
          "ide1:0.present = \"TRUE\"\n"
          "ide1:0.deviceType = \"cdrom-image\"\n"
          "ide1:0.fileName = \"/iso/debian.iso\"\n"
          "sata0:1.present = \"TRUE\"\n"
          "sata0:1.deviceType = \"cdrom-raw\"\n"
          "sata0:1.fileName = \"auto detect\"\n"
          "floppy0.fileType = \"file\"\n"
          "floppy0.fileName = \"boot.flp\"\n"
          "ethernet0.present = \"TRUE\"\n"
          "ethernet0.connectionType = \"nat\"\n"
          "uuid.bios = \"56 4d 1c\"\n"
          "strange.key = \"1\"\n",
          "memory: 2G\ncpus: 4\ndisks:\n"
          "  - file: \"mail.vmdk\"\n    bus: ahci\n    format: vmdk\n"
          "  - file: \"data \\\\ two.vmdk\"\n    bus: ahci\n    format: vmdk\n"
          "  - file: \"/vm/fast.vmdk\"\n    bus: nvme\n    format: vmdk\n"
          "cdrom: \"/iso/debian.iso\"\n");
    assert_string_equal(m.title, "Mail \"old\"");
    expect_note(&m.took, "memsize", "memory: 2G");
    expect_note(&m.took, "scsi0:0", "disk on ahci: mail.vmdk");
    expect_note(&m.dropped, "floppy0", "would write to boot.flp");
    expect_note(&m.dropped, "scsi0:2", "not present");
    expect_note(&m.dropped, "sata0:1", "drive of the host");
    expect_note(&m.dropped, "ethernet0.*", "no network card");
    expect_note(&m.dropped, "uuid.*", "UUID of its own");
    expect_note(&m.dropped, "strange.*", "not known");
    assert_null(note_on(&m.dropped, "memsize"));
    import_fini(&m);
}

static void vmx_refuses(void **state)
{
    char *large = calloc(1, IMPORT_MAX_TEXT + 2);
    memset(large, '\n', IMPORT_MAX_TEXT + 1);
    refuse(import_vmx, "", 0, ERR_FORMAT, "not a .vmx file");
    refuse(import_vmx, "cpus: 2\n", 8, ERR_FORMAT, "not a .vmx file");
    refuse(import_vmx, "a\0b", 3, ERR_FORMAT, "NUL");
    refuse(import_vmx, large, IMPORT_MAX_TEXT + 1, ERR_LIMIT, "larger than");
    for (size_t i = 0; i + 4 < IMPORT_MAX_TEXT; i += 4)
        memcpy(large + i, "a=1\n", 4);
    large[IMPORT_MAX_TEXT - 4] = 0;
    refuse(import_vmx, large, IMPORT_MAX_TEXT - 4, ERR_LIMIT, "more than 4096 keys");
    free(large);
}

/* One line each, beside the head: what is said of it, and that nothing comes of it. */
static void vmx_drops(void **state)
{
    static const char *const bad[][3] = {
        {"memsize = \"99999999999999999999\"", "memsize", "not a number of MiB"},
        {"memsize = \"-1\"", "memsize", "not a number of MiB"},
        {"memsize = \"18446744073709551615\"", "memsize", "1M to 1T"},
        {"memsize = \"0\"", "memsize", "1M to 1T"},
        {"numvcpus = \"two\"", "numvcpus", "not a number"},
        {"numvcpus = \"0\"", "numvcpus", "there will be 1"},
        {"firmware = \"efi\"", "firmware", "SeaBIOS only"},
        {"a line", "a line", "KEY ="},
        {"ide0:0.present = \"TRUE\"", "ide0:0", "no image"},
        {"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"C:\\a.vmdk\"", "ide0:0", "Windows"},
        {"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"/etc/passwd\"", "ide0:0", "not a vmdk"},
        {"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a|0A.vmdk\"", "ide0:0", "one line"},
        {"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"nbd://h/a.vmdk\"", "ide0:0",
         "not a file on this host"},
        {"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.iso\"\nide0:0.startConnected = "
         "\"FALSE\"",
         "ide0:0", "not connected"},
        {"scsi9:0.fileName = \"a.vmdk\"", "scsi9:0.*", "controller"},
        {"serial0.fileName = \"/root/.profile\"", "serial0.*", "COM1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct import m;
        char text[400];
        snprintf(text, sizeof text, "%s%s\n", vmx_head, bad[i][0]);
        parse(import_vmx, &m, text, "memory: 512M\n");
        expect_note(&m.dropped, bad[i][1], bad[i][2]);
        import_fini(&m);
    }
}

static void vmx_encodings(void **state)
{
    struct import m;
    struct error e = {0};
    static const char latin[] = ".encoding = \"windows-1252\"\ndisplayName = \"caf\xe9\"\n";
    assert_int_equal(import_vmx(&m, latin, strlen(latin), &e), 0);
    assert_string_equal(m.title, "caf\xc3\xa9");
    import_fini(&m);
    static const char odd[] = ".encoding = \"EBCDIC\"\ndisplayName = \"\xe9\"\n";
    refuse(import_vmx, odd, strlen(odd), ERR_FORMAT, "EBCDIC");
    static const char wrong[] = "displayName = \"\xe9\"\n";
    assert_int_equal(import_vmx(&m, wrong, strlen(wrong), &e), 0);
    expect_note(&m.dropped, "displayName", "UTF-8");
    import_fini(&m);
}

/* More drives than places: other buses, then notes. */
static void vmx_many_drives(void **state)
{
    char text[8192];
    int n = snprintf(text, sizeof text, "%s", vmx_head);
    for (unsigned i = 0; i < 20; i++)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "sata0:%u.present = \"TRUE\"\nsata0:%u.fileName = \"%u.vmdk\"\n", i, i, i);
    struct import m;
    struct error e = {0};
    assert_int_equal(import_vmx(&m, text, (size_t)n, &e), 0);
    assert_int_equal(m.spec.ndisk, SPEC_MAX_DISKS);
    assert_int_equal(m.spec.disk[5].bus, SPEC_BUS_AHCI);
    assert_int_equal(m.spec.disk[6].bus, SPEC_BUS_SCSI);
    expect_note(&m.dropped, "sata0:16", "at most 16");
    free(spec_of(&m));
    import_fini(&m);
}

/* ---- QEMU ---- */

/* Behind the program's name: the spec without the memory, which is 128M. */
static const char *const commands[][2] = {
    {"", ""},
    {"-hdb b.img -hda a.img", "disks:\n"
                              "  - file: \"a.img\"\n    bus: ide\n"
                              "  - file: \"b.img\"\n    bus: ide\n"},
    {"disk.img", "disks:\n  - file: \"disk.img\"\n    bus: ide\n"},
    {"-M q35 -hda a -cdrom c", "disks:\n"
                               "  - file: \"a\"\n    bus: ahci\n"
                               "  - file: \"c\"\n    bus: ahci\n    media: cdrom\n"},
    {"-cdrom 'a b'\\''c.iso' -fda \"f\\\"\\x\"", "cdrom: \"a b'c.iso\"\nfloppy: \"f\\\"\\\\x\"\n"},
    {"-drive if=virtio,file=a,,b=c,format=raw,readonly=on",
     "disks:\n  - file: \"a,b=c\"\n    bus: virtio\n    readonly: true\n    format: raw\n"},
    {"-device virtio-blk-pci,drive=x -drive id=x,file=a,if=none \\\n  -smp 2",
     "cpus: 2\ndisks:\n  - file: \"a\"\n    bus: virtio\n"},
    {"-device ahci,id=s -device ide-hd,drive=x,bus=s.1 -drive id=x,file=a,if=none",
     "disks:\n  - file: \"a\"\n    bus: ahci\n"},
    {"-blockdev driver=file,node-name=f,filename=a -blockdev vmdk,node-name=n,file=f "
     "-device nvme,drive=n",
     "disks:\n  - file: \"a\"\n    bus: nvme\n    format: vmdk\n"},
    {"-drive file=nbd://h/e,if=virtio", "disks:\n  - file: \"nbd://h/e\"\n    bus: virtio\n"},
    {"-smp sockets=2,cores=3 -boot dxc # -hda z", "cpus: 6\nboot: [cdrom, disk]\n"},
    {"-kernel k -initrd i --append 'a \"b\"'",
     "kernel: \"k\"\ninitrd: \"i\"\ncmdline: \"a \\\"b\\\"\"\n"},
    {"-initrd i", ""},
    {"-blockdev "
     "'{\"driver\":\"file\",\"filename\":\"/a,b\",\"node-name\":\"s\",\"discard\":\"unmap\"}' "
     "-blockdev '{\"node-name\":\"f\",\"read-only\":true,\"driver\":\"qcow2\",\"file\":\"s\"}' "
     "-device '{\"driver\":\"virtio-blk-pci\",\"bus\":\"pci.0\",\"drive\":\"f\",\"bootindex\":1}'",
     "disks:\n  - file: \"/a,b\"\n    bus: virtio\n    readonly: true\n    format: qcow2\n"},
    {"-blockdev "
     "'{\"driver\":\"raw\",\"node-name\":\"f\",\"file\":{\"filename\":\"x\",\"driver\":\"file\"}}' "
     "-device ide-hd,drive=f",
     "disks:\n  - file: \"x\"\n    bus: ide\n    format: raw\n"},
    {"-serial file:s -nographic -rtc base=localtime", "serial:\n  file: \"s\"\nclock: localtime\n"},
    {"-nographic -serial none -serial stdio", "serial: none\n"},
    /* What is not known takes one word at most, and never an option. */
    {"-frob 7 -hda a", "disks:\n  - file: \"a\"\n    bus: ide\n"},
    {"-frob -hda a; -hdb b", "disks:\n  - file: \"a\"\n    bus: ide\n"},
    {"-enable-kvm a", "disks:\n  - file: \"a\"\n    bus: ide\n"},
};

static void qemu_commands(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        struct import m;
        char text[800], spec[400];
        snprintf(text, sizeof text, "sudo /usr/bin/qemu-system-x86_64 %s", commands[i][0]);
        snprintf(spec, sizeof spec, "memory: 128M\n%s", commands[i][1]);
        parse(import_qemu, &m, text, spec);
        import_fini(&m);
    }
}

static void qemu_sizes(void **state)
{
    static const struct {
        const char *text;
        unsigned mib;
    } sizes[] = {{"512", 512}, {"1.5G", 1536},     {"2g", 2048},       {"size=64M,slots=2", 64},
                 {"4x", 128},  {"1048577k", 1025}, {"99999999T", 128}, {"-1", 128},
                 {"1k", 1},    {"'1 G'", 128}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct import m;
        struct error e = {0};
        char text[100];
        snprintf(text, sizeof text, "kvm -m %s", sizes[i].text);
        assert_int_equal(import_qemu(&m, text, strlen(text), &e), 0);
        if (m.spec.memory != sizes[i].mib * MIB)
            fail_msg("%s: %llu", sizes[i].text, (unsigned long long)m.spec.memory);
        import_fini(&m);
    }
}

static void qemu_drops(void **state)
{
    static const char *const bad[][3] = {
        {"-nic user", "-nic", "no network card"},
        {"-drive if=pflash,file=OVMF.fd", "-drive", "UEFI"},
        {"-drive if=none,file=a", "-drive", "no device shows it"},
        {"-drive if=virtio", "-drive", "no image"},
        {"-drive file=a.vhd,format=vpc", "-drive", "convert the image"},
        {"-drive file=rbd:pool/a", "-drive", "no protocol"},
        {"-drive if=virtio,index=77", "-drive", "no place"},
        {"-device ide-hd,drive=gone", "ide-hd", "there is no drive gone"},
        {"-device pvpanic", "-device", "pvpanic: there is no such device"},
        {"-blockdev '{\"driver\": '", "-blockdev", "not JSON"},
        {"-blockdev '{\"driver\": \"file\", \"filename\": \"a\"}'", "-blockdev", "no device"},
        {"-blockdev raw,node-name=a,file=b -blockdev raw,node-name=b,file=a -device nvme,drive=a",
         "-blockdev", "no image"},
        {"-smp 64", "-smp", "at most 32"},
        {"-serial pty", "-serial", "pty"},
        {"-hda", "-hda", "argument is missing"},
        {"-append x", "-append", "no -kernel"},
        {"-name $HOME", "$", "shell"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct import m;
        struct error e = {0};
        char text[400];
        snprintf(text, sizeof text, "A=b qemu-system-i386 %s", bad[i][0]);
        assert_int_equal(import_qemu(&m, text, strlen(text), &e), 0);
        assert_int_equal(m.spec.ndisk, 0);
        expect_note(&m.dropped, bad[i][1], bad[i][2]);
        expect_note(&m.dropped, "A=b", "before the program");
        free(spec_of(&m));
        import_fini(&m);
    }
}

static void qemu_refuses(void **state)
{
    char *many = malloc(8000);
    refuse(import_qemu, "", 0, ERR_FORMAT, "no qemu-system-x86_64");
    refuse(import_qemu, "ls -l qemu", 10, ERR_FORMAT, "no qemu-system-x86_64");
    refuse(import_qemu, "qemu-system-arm x", 17, ERR_FORMAT, "VMs are PCs");
    refuse(import_qemu, "kvm 'x", 6, ERR_FORMAT, "no end");
    refuse(import_qemu, "kvm \"x\\\"", 8, ERR_FORMAT, "no end");
    for (size_t i = 0; i < 8000; i += 2)
        memcpy(many + i, "a ", 2);
    many[7999] = 0;
    refuse(import_qemu, many, 7999, ERR_LIMIT, "2048 words");
    free(many);
}

/* ---- VirtualBox ---- */

#define VBOX(inside)                                                     \
    "<?xml version=\"1.0\"?>\n<!-- ours -->\n"                           \
    "<VirtualBox xmlns=\"http://www.virtualbox.org/\" version=\"1.19\">" \
    "<Machine name=\"Web &lt;1&gt;\">" inside "</Machine></VirtualBox>\n"

static void vbox_whole(void **state)
{
    struct import m;
    parse(import_vbox, &m,
          VBOX("<MediaRegistry><HardDisks>"
               "<HardDisk uuid=\"{a}\" location=\"web.vdi\" format=\"VDI\" type=\"Normal\">"
               "<HardDisk uuid=\"{b}\" location=\"Snapshots/b.vdi\" format=\"VDI\"/></HardDisk>"
               "<HardDisk uuid=\"{c}\" location=\"/v/c.vmdk\" format=\"VMDK\" type=\"Immutable\"/>"
               "<HardDisk uuid=\"{d}\" location=\"d.vhd\" format=\"VHD\"/></HardDisks>"
               "<DVDImages><Image uuid=\"{i}\" location=\"/iso/x.iso\"/></DVDImages>"
               "<FloppyImages><Image uuid=\"{f}\" location=\"/root/.profile\"/></FloppyImages>"
               "</MediaRegistry><Snapshot><Hardware><CPU count=\"9\"/></Hardware></Snapshot>"
               "<Hardware><CPU count=\"2\"><PAE enabled=\"true\"/></CPU><Memory RAMSize=\"1024\"/>"
               "<Boot><Order position=\"1\" device=\"DVD\"/><Order device=\"HardDisk\"/>"
               "<Order device=\"DVD\"/><Order device=\"Network\"/><Order device=\"None\"/></Boot>"
               "<RTC localOrUTC=\"local\"/><Network><Adapter slot=\"0\"/></Network><Odd/>"
               "<StorageControllers><StorageController name=\"SATA\" type=\"AHCI\">"
               "<AttachedDevice type=\"HardDisk\" port=\"0\" device=\"0\"><Image uuid=\"{a}\"/>"
               "</AttachedDevice><AttachedDevice type=\"HardDisk\" port=\"1\" device=\"0\">"
               "<Image uuid=\"{b}\"/></AttachedDevice><AttachedDevice type=\"HardDisk\" port=\"2\" "
               "device=\"0\"><Image uuid=\"{d}\"/></AttachedDevice><AttachedDevice type=\"DVD\" "
               "port=\"3\" device=\"0\"/></StorageController><StorageController name=\"IDE\" "
               "type=\"PIIX4\"><AttachedDevice type=\"DVD\" port=\"1\" device=\"0\"><Image "
               "uuid=\"{i}\"/></AttachedDevice></StorageController><StorageController "
               "name=\"N\" type=\"NVMe\"><AttachedDevice type=\"HardDisk\" port=\"0\" device=\"0\">"
               "<Image uuid=\"{c}\"/></AttachedDevice></StorageController><StorageController "
               "name=\"F\" type=\"I82078\"><AttachedDevice type=\"Floppy\" port=\"0\" device=\"0\">"
               "<Image uuid=\"{f}\"/></AttachedDevice></StorageController></StorageControllers>"
               "</Hardware>"),
          "memory: 1G\ncpus: 2\nboot: [cdrom, disk]\ndisks:\n"
          "  - file: \"web.vdi\"\n    bus: ahci\n    format: vdi\n"
          "  - file: \"/v/c.vmdk\"\n    bus: nvme\n    format: vmdk\n"
          "cdrom: \"/iso/x.iso\"\nclock: localtime\n");
    assert_string_equal(m.title, "Web <1>");
    assert_true(!m.overlay[0] && m.overlay[1]);
    expect_note(&m.dropped, "SATA:1:0", "rests on a snapshot");
    expect_note(&m.dropped, "SATA:2:0", "format VHD");
    expect_note(&m.dropped, "SATA:3:0", "no medium");
    expect_note(&m.dropped, "F:0:0", "would write to /root/.profile");
    expect_note(&m.dropped, "Snapshot", "not taken over");
    expect_note(&m.dropped, "Network", "no network card");
    expect_note(&m.dropped, "Odd", "not known");
    import_fini(&m);
}

static void vbox_refuses(void **state)
{
    static const char *const bad[][2] = {
        {"", "line 1"},
        {"<VirtualBox/>", "no Machine"},
        {"<VirtualBox><Machine></VirtualBox>", "mismatched"},
        {"<!DOCTYPE x [<!ENTITY e SYSTEM \"/etc/passwd\">]><VirtualBox><Machine name=\"&e;\"/>"
         "</VirtualBox>",
         "document type"},
        {"<VirtualBox><Machine name=\"&e;\"/></VirtualBox>", "undefined entity"},
    };
    char deep[1000] = "";
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        refuse(import_vbox, bad[i][0], strlen(bad[i][0]), ERR_FORMAT, bad[i][1]);
    for (unsigned i = 0; i < 200; i++)
        strcat(deep, "<HD>");
    refuse(import_vbox, deep, strlen(deep), ERR_FORMAT, "64 deep");
}

/* Notes are bounded, and what is in them is fit for a terminal. */
static void notes(void **state)
{
    struct import m = {0};
    for (unsigned i = 0; i < IMPORT_MAX_NOTES + 3; i++)
        import_drop(&m, "a\x1b[2Jb", "\xff%c\n", 7);
    assert_int_equal(m.dropped.n, IMPORT_MAX_NOTES);
    assert_int_equal(m.dropped.more, 3);
    assert_string_equal(m.dropped.note[0].from, "a?[2Jb");
    assert_string_equal(m.dropped.note[0].text, "???");
    import_fini(&m);
}

static void names(void **state)
{
    static const char *const want[][2] = {
        {"web", "web"},
        {"Windows XP (old)", "Windows-XP-old"},
        {"../..", ""},
        {"", ""},
        {"\xc3\xa9t\xc3\xa9", "t"},
        {"-a.b_c-", "a.b_c"},
    };
    char out[IMPORT_NAME], large[200];
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        import_name(want[i][0], out);
        assert_string_equal(out, want[i][1]);
    }
    memset(large, 'a', sizeof large);
    large[sizeof large - 1] = 0;
    import_name(large, out);
    assert_int_equal(strlen(out), IMPORT_NAME - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmx_whole),       cmocka_unit_test(vmx_refuses),
        cmocka_unit_test(vmx_drops),       cmocka_unit_test(vmx_encodings),
        cmocka_unit_test(vmx_many_drives), cmocka_unit_test(qemu_commands),
        cmocka_unit_test(qemu_sizes),      cmocka_unit_test(qemu_drops),
        cmocka_unit_test(qemu_refuses),    cmocka_unit_test(vbox_whole),
        cmocka_unit_test(vbox_refuses),    cmocka_unit_test(notes),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
