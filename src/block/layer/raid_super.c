/* raid_super.c - superblocks of arrays: reading with checks, writing. */
#include "block/layer/raid_super.h"

#include <string.h>
#include <zlib.h>

#include "base/endian.h"

#define SECTOR  512u
#define SLOT    4096u /* distance of the two superblocks */
#define BITMAP  8192u
#define VERSION 1u

static const char magic[8] = {'S', 'o', 's', 'i', 'a', 'R', 'A', 'D'};

/* Offsets in the superblock. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_LEVEL = 12,
    AT_UUID = 16,
    AT_SLOTS = 32,
    AT_SLOT = 36,
    AT_CHUNK = 40,
    AT_SHIFT = 44,
    AT_SIZE = 48,
    AT_EVENTS = 56,
    AT_FORMAT = 64,
    AT_MEMBERS = 80, /* of 16 bytes: u32 state, u32 0, u64 rebuilt */
    AT_CRC = 508,
};

static uint32_t crc_of(const uint8_t b[SECTOR])
{
    return (uint32_t)crc32(crc32(0, NULL, 0), b, AT_CRC);
}

static bool is_word(const char *s, size_t size)
{
    size_t n = strnlen(s, size);
    for (size_t i = 0; i < n; i++)
        if ((s[i] < 'a' || s[i] > 'z') && (s[i] < '0' || s[i] > '9'))
            return false;
    return n > 0 && n < size;
}

/* What holds for every array; `size` is that of the member. */
static bool is_sound(const struct raid_super *s, uint64_t size)
{
    uint64_t meta = raid_meta(size);
    if (s->level > 1 || s->slots == 0 || s->slots > RAID_MAX_MEMBERS || s->slot >= s->slots ||
        s->size == 0 || s->size > meta || s->size % SECTOR || s->events > INT64_MAX ||
        !is_word(s->format, sizeof s->format))
        return false;
    if (s->level == 0)
        return s->chunk >= RAID_MIN_CHUNK && s->chunk <= RAID_MAX_CHUNK &&
               !(s->chunk & (s->chunk - 1)) && s->size % s->chunk == 0 &&
               s->size <= INT64_MAX / s->slots;
    if (s->shift < 12 || s->shift > 60 || (s->size - 1) >> s->shift >= RAID_REGIONS)
        return false;
    for (unsigned i = 0; i < s->slots; i++)
        if (s->member[i].state > RAID_REBUILDING || s->member[i].rebuilt > s->size)
            return false;
    return true;
}

static bool decode(const uint8_t b[SECTOR], uint64_t size, struct raid_super *s)
{
    memset(s, 0, sizeof *s);
    if (memcmp(b + AT_MAGIC, magic, sizeof magic) != 0 || load_le32(b + AT_VERSION) != VERSION ||
        load_le32(b + AT_CRC) != crc_of(b))
        return false;
    s->level = load_le32(b + AT_LEVEL);
    memcpy(s->uuid, b + AT_UUID, RAID_UUID);
    s->slots = load_le32(b + AT_SLOTS);
    s->slot = load_le32(b + AT_SLOT);
    s->chunk = load_le32(b + AT_CHUNK);
    s->shift = load_le32(b + AT_SHIFT);
    s->size = load_le64(b + AT_SIZE);
    s->events = load_le64(b + AT_EVENTS);
    memcpy(s->format, b + AT_FORMAT, sizeof s->format);
    for (unsigned i = 0; i < RAID_MAX_MEMBERS; i++) {
        s->member[i].state = (enum raid_state)load_le32(b + AT_MEMBERS + 16 * i);
        s->member[i].rebuilt = load_le64(b + AT_MEMBERS + 16 * i + 8);
    }
    return is_sound(s, size);
}

static void encode(const struct raid_super *s, uint8_t b[SECTOR])
{
    memset(b, 0, SECTOR);
    memcpy(b + AT_MAGIC, magic, sizeof magic);
    store_le32(b + AT_VERSION, VERSION);
    store_le32(b + AT_LEVEL, s->level);
    memcpy(b + AT_UUID, s->uuid, RAID_UUID);
    store_le32(b + AT_SLOTS, s->slots);
    store_le32(b + AT_SLOT, s->slot);
    store_le32(b + AT_CHUNK, s->chunk);
    store_le32(b + AT_SHIFT, s->shift);
    store_le64(b + AT_SIZE, s->size);
    store_le64(b + AT_EVENTS, s->events);
    memcpy(b + AT_FORMAT, s->format, sizeof s->format);
    for (unsigned i = 0; i < s->slots; i++) {
        store_le32(b + AT_MEMBERS + 16 * i, s->member[i].state);
        store_le64(b + AT_MEMBERS + 16 * i + 8, s->member[i].rebuilt);
    }
    store_le32(b + AT_CRC, crc_of(b));
}

int raid_super_read(struct node *n, struct raid_super *s, bool *found)
{
    uint64_t size = node_size(n), meta = raid_meta(size);
    *found = false;
    if (!meta)
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t b[SECTOR];
        struct raid_super one;
        int rc = node_read(n, b, sizeof b, meta + i * SLOT);
        if (rc)
            return rc;
        if (decode(b, size, &one) && (!*found || one.events > s->events)) {
            *s = one;
            *found = true;
        }
    }
    return 0;
}

int raid_super_write(struct node *n, const struct raid_super *s)
{
    uint8_t b[SECTOR];
    encode(s, b);
    return node_write(n, b, sizeof b, raid_meta(node_size(n)) + s->events % 2 * SLOT, NODE_FUA);
}

int raid_bitmap_read(struct node *n, uint8_t bits[RAID_BITMAP])
{
    return node_read(n, bits, RAID_BITMAP, raid_meta(node_size(n)) + BITMAP);
}

int raid_bitmap_write(struct node *n, const uint8_t bits[RAID_BITMAP], bool durable)
{
    return node_write(n, bits, RAID_BITMAP, raid_meta(node_size(n)) + BITMAP,
                      durable ? NODE_FUA : 0);
}

const char *raid_state_name(enum raid_state s)
{
    static const char *const names[] = {"in sync", "stale", "rebuilding"};
    return names[s <= RAID_REBUILDING ? s : RAID_STALE];
}
