/*
 * fuzz_raid.c - members of an array whose superblocks and bitmaps say anything, with right
 * checksums. Input: what they are, what to damage, then reads and writes. What is written reads
 * back; an array that is only read is never written.
 */
#include <zlib.h>

#include "base/endian.h"
#include "block/layer/raid.h"
#include "memfile.h"

#define MEMBERS 3u
#define DATA    (64u * 1024)
#define SUPER   512u

static struct memfile *file[MEMBERS];

static void make_members(struct raid_member *m, unsigned level)
{
    const struct raid_create c = {.level = level, .chunk = level ? 0 : 4096, .region = 8192};
    struct error e = {0};
    for (unsigned i = 0; i < MEMBERS; i++) {
        file[i] = memfile_open();
        file[i]->stays = true;
        file[i]->node.size = DATA + RAID_META;
        m[i] = (struct raid_member){
            .name = "member", .node = &file[i]->node, .blank = true, .format = "raw"};
    }
    FUZZ_REQUIRE(raid_create(m, MEMBERS, &c, &e) == 0);
    for (unsigned i = 0; i < MEMBERS; i++) {
        uint8_t *super = file[i]->data + DATA + 4096; /* of the first event */
        memset(super + 16, 7, RAID_UUID);
        memcpy(super - 4096, super, SUPER);
        store_le64(super - 4096 + 56, 0);
        m[i].blank = false;
    }
}

static void damage(struct fuzz_in *in)
{
    uint8_t *meta = file[fuzz_u8(in) % MEMBERS]->data + DATA;
    uint8_t where = fuzz_u8(in);
    uint32_t at = where & 1 ? 8192 + fuzz_u8(in) % 2u : where / 2 % 2u * 4096 + fuzz_u16(in) % 340u;
    uint8_t n = fuzz_u8(in) % 9u;
    while (n--)
        meta[at++] = fuzz_u8(in);
}

static void seal(void)
{
    for (unsigned i = 0; i < MEMBERS; i++)
        for (unsigned k = 0; k < 2; k++) {
            uint8_t *super = file[i]->data + DATA + k * 4096;
            store_le32(super + SUPER - 4, (uint32_t)crc32(crc32(0, NULL, 0), super, SUPER - 4));
        }
}

static void use(struct node *n, struct fuzz_in *in)
{
    static uint8_t a[32768], b[32768];
    uint64_t size = node_size(n), at = fuzz_uint(in, 3) % size;
    uint64_t len = min_u64(fuzz_u16(in) % sizeof a + 1, size - at);
    uint8_t what = fuzz_u8(in);
    struct node_extent x;
    struct node_place p;
    if (!node_map(n, at, len, &x))
        FUZZ_REQUIRE(x.len > 0 && x.len <= len);
    if (node_resolve(n, at, len, false, &p))
        FUZZ_REQUIRE(p.len > 0 && p.len <= len);
    memset(a, what, len);
    int rc = what % 3 == 0   ? node_write(n, a, len, at, what & 16 ? NODE_FUA : 0)
             : what % 3 == 1 ? node_zero(n, at, len, 0)
                             : node_flush(n);
    if (what % 3 == 1)
        memset(a, 0, len);
    if (!rc && what % 3 < 2 && !node_read(n, b, len, at))
        FUZZ_REQUIRE(memcmp(a, b, len) == 0);
    else
        node_read(n, b, len, at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct raid_member m[MEMBERS];
    uint8_t flags = fuzz_u8(&in), damages = fuzz_u8(&in) % 8;
    static uint8_t before[MEMBERS][DATA + RAID_META];
    make_members(m, flags & 1);
    while (damages-- && in.left)
        damage(&in);
    seal();
    if (flags & 2) {
        m[0].node = NULL;
        m[0].why = "gone";
    }
    m[1].blank = flags & 4;
    const struct raid_options o = {.level = flags & 64 ? RAID_ANY_LEVEL : flags & 1,
                                   .readonly = !(flags & 8),
                                   .degraded = flags & 16,
                                   .no_pauses = true,
                                   .sweep = 1};
    struct error e = {0};
    struct node *n = NULL;
    for (unsigned i = 0; i < MEMBERS; i++)
        memcpy(before[i], file[i]->data, sizeof before[i]);
    int rc = raid_open(m, flags & 32 ? 2 : 3, &o, &n, &e);
    FUZZ_REQUIRE(rc == 0 ? n != NULL && node_size(n) > 0 : (e.code == rc && e.msg[0]));
    if (n) {
        for (unsigned i = 0; in.left && i < 16; i++)
            use(n, &in);
        node_close(n);
    }
    for (unsigned i = 0; i < MEMBERS; i++) {
        FUZZ_REQUIRE(!o.readonly || !memcmp(before[i], file[i]->data, sizeof before[i]));
        free(file[i]);
    }
    return 0;
}
