/*
 * test_state_stream.c - the stream of a saved state: what goes round comes back the same, read or
 * mapped, and whatever is cut off, changed or foreign is refused with a message.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zstd.h>

#include "base/endian.h"
#include "state/section.h"

struct part {
    uint16_t word;
};
static const struct field part_fields[] = {FIELD(struct part, word)};
static const struct field_table part_table = FIELD_TABLE(struct part, "part", part_fields);

#define PAGES 600u

static uint8_t *memory; /* PAGES pages and a few more, some of them zero */
static int memory_fd;
static struct part part;
static uint8_t mapped[1];
static struct state_list list;

static void fill(void)
{
    srand(5);
    memset(memory, 0, PAGES * PAGE_SIZE);
    for (unsigned n = 0; n < PAGES; n++)
        for (unsigned k = 0; k < PAGE_SIZE && n % 3; k++) /* some compress, some do not */
            memory[n * PAGE_SIZE + k] = (uint8_t)(n < 300 ? n % 200 + 1 : (unsigned)rand());
}

static int setup(void **state)
{
    memory_fd = memfd_create("memory", MFD_CLOEXEC);
    assert_int_equal(ftruncate(memory_fd, PAGES * PAGE_SIZE), 0);
    memory = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    fill();
    part = (struct part){0xbeef};
    list = (struct state_list){.nparts = 0};
    state_add_part(&list, &part_table, &part, "part %u", 1u);
    state_add_memory(&list,
                     (struct state_memory){
                         .name = "ram", .host = memory, .len = PAGES * PAGE_SIZE, .fd = memory_fd});
    return 0;
}

/* Pages are mapped. */
static int setup_mapped(void **state)
{
    setup(state);
    mapped[0] = 0;
    list.memory[0].mapped = mapped;
    return 0;
}

static int teardown(void **state)
{
    munmap(memory, PAGES * PAGE_SIZE);
    close(memory_fd);
    return 0;
}

/* Of `bytes` bytes, or what state_save() writes. */
static int stream_of(const void *bytes, size_t len)
{
    int fd = memfd_create("stream", MFD_CLOEXEC);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static uint8_t *save_all(size_t *len, struct state_stats *stats)
{
    struct error e;
    int fd = memfd_create("stream", MFD_CLOEXEC);
    int rc = state_save(fd, &list, stats, &e);
    if (rc)
        fail_msg("%s", e.msg);
    *len = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *p = malloc(*len);
    assert_int_equal(pread(fd, p, *len, 0), (ssize_t)*len);
    close(fd);
    return p;
}

static int load_all(const void *bytes, size_t len, struct error *e)
{
    int fd = stream_of(bytes, len);
    struct state_stats stats;
    int rc = state_load(fd, &list, &stats, e);
    close(fd);
    return rc;
}

static void a_stream_comes_back_the_same(void **state)
{
    size_t len, again;
    struct state_stats stats;
    uint8_t *copy = malloc(PAGES * PAGE_SIZE);
    memcpy(copy, memory, PAGES * PAGE_SIZE);
    uint8_t *first = save_all(&len, &stats);
    assert_int_equal(stats.pages, PAGES - (PAGES + 2) / 3);
    assert_int_equal(stats.zero_pages, (PAGES + 2) / 3);
    assert_int_equal(stats.bytes, len);
    if (list.memory[0].mapped)
        mapped[0] = 0xff;                    /* nothing may depend on what was there before */
    memset(memory, 0x55, PAGES * PAGE_SIZE); /* zero pages are zero afterwards, too */
    part.word = 1;
    struct error e;
    if (load_all(first, len, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(memory, copy, PAGES * PAGE_SIZE);
    assert_int_equal(part.word, 0xbeef);
    assert_int_equal(mapped[0], list.memory[0].mapped ? 7 : 0);
    uint8_t *second = save_all(&again, NULL);
    assert_int_equal(len, again);
    assert_memory_equal(first, second, len);
    memory[0] = 1; /* the mapping is private */
    memory[PAGE_SIZE] = 1;
    if (load_all(first, len, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(memory, copy, PAGES * PAGE_SIZE);
    free(first);
    free(second);
    free(copy);
}

static void holes_stay_holes(void **state)
{
    size_t len;
    memset(memory, 0, PAGES * PAGE_SIZE);
    memory[70 * PAGE_SIZE] = 1;
    uint8_t *first = save_all(&len, NULL);
    assert_int_equal(load_all(first, len, NULL), 0);
    assert_int_equal(memory[70 * PAGE_SIZE], 1);
    if (!list.memory[0].mapped)
        assert_int_equal(lseek(memory_fd, 0, SEEK_DATA), 70 * (off_t)PAGE_SIZE);
    else
        assert_int_equal(lseek(memory_fd, 0, SEEK_DATA), -1);
    free(first);
}

static void cut_off_streams_are_refused(void **state)
{
    size_t len;
    memset(memory, 0, PAGES * PAGE_SIZE);
    memory[65 * PAGE_SIZE] = 1;
    uint8_t *first = save_all(&len, NULL);
    assert_true(len < 3 * PAGE_SIZE);
    for (size_t n = 0; n < len; n += n % PAGE_SIZE < 300 ? 1 : 97) {
        struct error e = {0};
        assert_int_equal(load_all(first, n, &e), ERR_FORMAT);
        assert_true(e.msg[0]);
    }
    assert_int_equal(load_all(first, len, NULL), 0);
    free(first);
}

static void flipped_bits_are_found(void **state)
{
    size_t len;
    memset(memory, 0, PAGES * PAGE_SIZE);
    memory[65 * PAGE_SIZE] = 1;
    uint8_t *first = save_all(&len, NULL);
    for (size_t n = 0; n < len; n += n % PAGE_SIZE < 300 ? 1 : 97) {
        struct error e = {0};
        first[n] ^= (uint8_t)(1u << (n % 8));
        if (!load_all(first, len, &e))
            fail_msg("byte %zu of %zu has another bit, and nobody noticed", n, len);
        assert_true(e.msg[0]);
        first[n] ^= (uint8_t)(1u << (n % 8));
    }
    free(first);
}

static void other_machines_are_refused(void **state)
{
    size_t len;
    struct error e;
    uint8_t *first = save_all(&len, NULL);
    struct state_list was = list;
    state_add_part(&list, &part_table, &part, "another");
    assert_int_equal(load_all(first, len, &e), ERR_STATE);
    assert_non_null(strstr(e.msg, "it lacks \"another\""));
    list = was;
    strcpy(list.part[0].name, "renamed");
    assert_int_equal(load_all(first, len, &e), ERR_STATE);
    assert_non_null(strstr(e.msg, "\"part 1\" does not exist here"));
    list = was;
    list.memory[0].len -= PAGE_SIZE;
    assert_int_equal(load_all(first, len, &e), ERR_STATE);
    assert_non_null(strstr(e.msg, "memory \"ram\" has 2400 KiB there and 2396 KiB here"));
    list = was;
    assert_int_equal(load_all("an ordinary text, and not a short one", 37, &e), ERR_FORMAT);
    assert_string_equal(e.msg, "this is no saved state of a virtual machine");
    free(first);
}

/* A section that its checksums vouch for may still be hostile. */
static void hostile_pages_are_refused(void **state)
{
    static const struct {
        unsigned off, bytes;
        uint64_t value;
    } change[] = {{0, 4, 1},       /* a memory that does not exist */
                  {4, 4, 3},       /* no known encoding */
                  {4, 4, 0},       /* another, for which there is too much */
                  {8, 8, 1 << 20}, /* beyond the memory */
                  {8, 8, 599},     /* the second of them */
                  {16, 8, 0},      /* no pages at all */
                  {16, 8, 3},      /* more pages than there are data */
                  {8, 8, 511},     /* in two blocks */
                  {8, 8, ~0ull},   {16, 8, ~0ull}};
    size_t len;
    memset(memory, 0, PAGES * PAGE_SIZE);
    memory[590 * PAGE_SIZE] = 1; /* in the last block, which is not whole */
    memory[591 * PAGE_SIZE] = 1;
    uint8_t *first = save_all(&len, NULL);
    size_t at = STATE_HEAD_LEN + STATE_SECTION_LEN + load_le64(first + STATE_HEAD_LEN + 8);
    assert_int_equal(load_le32(first + at), STATE_PAGES);
    uint8_t *payload = first + at + STATE_SECTION_LEN;
    uint64_t size = load_le64(first + at + 8);
    for (unsigned n = 0; n < ARRAY_LEN(change); n++) {
        uint8_t *copy = malloc(len), *p = copy + (payload - first);
        memcpy(copy, first, len);
        uint64_t le = htole64(change[n].value);
        memcpy(p + change[n].off, &le, change[n].bytes);
        store_le32(copy + at + 16, state_crc(0, p, size));
        store_le32(copy + at + 20, state_crc(0, copy + at, 20));
        struct error e = {0};
        assert_int_equal(load_all(copy, len, &e), ERR_FORMAT);
        assert_true(e.msg[0]);
        free(copy);
    }
    free(first);
}

static void a_full_disk_is_an_error(void **state)
{
    struct error e;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(state_save(fd, &list, NULL, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "No space left"));
    close(fd);
}

/* What goes on while it is written is not in it; whatever there is room for. */
static void a_copy_is_of_one_moment(void **state)
{
    size_t len;
    uint8_t *want = save_all(&len, NULL), *got = malloc(len);
    for (uint64_t budget = 0; budget <= 2 * PAGES * PAGE_SIZE; budget += 128 * PAGE_SIZE) {
        struct state_saving *s;
        struct error e;
        fill();
        part.word = 0xbeef;
        int fd = memfd_create("stream", MFD_CLOEXEC);
        struct state_pool pool;
        state_pool_make(&pool, &list, budget);
        assert_int_equal(pool.len, budget < list.memory[0].len ? budget : list.memory[0].len);
        assert_int_equal(state_save_begin(&s, fd, &list, &pool, &e), 0);
        assert_null(pool.p);
        off_t before = lseek(fd, 0, SEEK_CUR);
        if (budget >= PAGES * PAGE_SIZE)
            assert_int_equal(before, STATE_HEAD_LEN);
        memset(memory, 0x55, PAGES * PAGE_SIZE);
        part.word = 1;
        assert_int_equal(state_save_end(s, NULL, &e), 0);
        assert_int_equal(lseek(fd, 0, SEEK_END), len);
        assert_int_equal(pread(fd, got, len, 0), len);
        assert_memory_equal(got, want, len);
        close(fd);
    }
    free(want);
    free(got);
}

/* Through a pipe, and from the middle of a file. */
static void a_stream_lies_anywhere(void **state)
{
    size_t len;
    struct error e;
    int fd[2], file = memfd_create("file", MFD_CLOEXEC);
    for (unsigned n = 3; n < PAGES; n++)
        memset(memory + n * PAGE_SIZE, 0, PAGE_SIZE);
    uint8_t *first = save_all(&len, NULL), *copy = malloc(PAGES * PAGE_SIZE);
    memcpy(copy, memory, PAGES * PAGE_SIZE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(state_save(fd[0], &list, NULL, &e), 0);
    memset(memory, 0x55, PAGES * PAGE_SIZE);
    if (state_load(fd[1], &list, NULL, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(memory, copy, PAGES * PAGE_SIZE);
    assert_int_equal(pwrite(file, first, len, 1000), len);
    lseek(file, 1000, SEEK_SET);
    if (state_load(file, &list, NULL, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(memory, copy, PAGES * PAGE_SIZE);
    close(fd[0]);
    close(fd[1]);
    close(file);
    free(first);
    free(copy);
}

/* ---- version 1 ---- */

struct old {
    struct state_out out, index;
    uint32_t sections, crc;
};

static void put_old(struct old *o, enum state_kind kind, const void *p, size_t len)
{
    uint8_t head[STATE_SECTION_LEN];
    store_le32(head, kind);
    store_le32(head + 4, o->sections++);
    store_le64(head + 8, len);
    store_le32(head + 16, state_crc(0, p, len));
    store_le32(head + 20, state_crc(0, head, 20));
    o->crc = state_crc(o->crc, head + 16, 4);
    state_put(&o->out, head, sizeof head);
    state_put(&o->out, p, len);
}

static void put_old_pages(struct old *o, uint64_t first, bool packed)
{
    uint8_t p[STATE_MAX_PAGES_SECTION];
    const uint8_t *from = memory + first * PAGE_SIZE;
    size_t len = 4 * PAGE_SIZE;
    store_le32(p, 0);
    store_le32(p + 4, packed ? STATE_ZSTD : STATE_RAW);
    store_le64(p + 8, first);
    store_le64(p + 16, 15);
    state_put_uint(&o->index, 0, 8);
    state_put_uint(&o->index, first, 8);
    state_put_uint(&o->index, o->out.len, 8);
    if (packed)
        len = ZSTD_compress(p + STATE_PAGES_LEN, STATE_CHUNK_SIZE, from, len, 1);
    else
        memcpy(p + STATE_PAGES_LEN, from, len);
    put_old(o, STATE_PAGES, p, STATE_PAGES_LEN + len);
}

/* As the first version of the format had it: pages compressed, or together. */
static void version_1_is_read(void **state)
{
    struct old o = {.sections = 0};
    struct error e;
    uint8_t head[STATE_HEAD_LEN] = STATE_MAGIC, end[12];
    uint8_t *copy = malloc(PAGES * PAGE_SIZE);
    memset(memory + 4 * PAGE_SIZE, 0, 124 * PAGE_SIZE);
    memset(memory + 132 * PAGE_SIZE, 0, (PAGES - 132) * PAGE_SIZE);
    memcpy(copy, memory, PAGES * PAGE_SIZE);
    state_out_init(&o.out, 1 << 20);
    state_out_init(&o.index, 1 << 20);
    store_le32(head + 12, 1);
    store_le32(head + 16, state_crc(0, head, 16));
    state_put(&o.out, head, sizeof head);
    put_old(&o, STATE_MEMORY, "\0\0\0\0\0\x80\x25\0\0\0\0\0\3ram", 16);
    put_old_pages(&o, 0, true);
    put_old_pages(&o, 128, false);
    put_old(&o, STATE_PART, "\6part 1\1\0\4word\1\1\0\0\0\xef\xbe", 22);
    put_old(&o, STATE_INDEX, o.index.p, o.index.len);
    store_le64(end, o.sections);
    store_le32(end + 8, o.crc);
    put_old(&o, STATE_END, end, sizeof end);
    memset(memory, 0x55, PAGES * PAGE_SIZE);
    part.word = 1;
    if (load_all(o.out.p, o.out.len, &e))
        fail_msg("%s", e.msg);
    assert_memory_equal(memory, copy, PAGES * PAGE_SIZE);
    assert_int_equal(part.word, 0xbeef);
    state_out_fini(&o.out);
    state_out_fini(&o.index);
    free(copy);
}

#define BOTH(test)                                          \
    cmocka_unit_test_setup_teardown(test, setup, teardown), \
        cmocka_unit_test_setup_teardown(test, setup_mapped, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_stream_comes_back_the_same),
        BOTH(holes_stay_holes),
        BOTH(cut_off_streams_are_refused),
        BOTH(flipped_bits_are_found),
        BOTH(other_machines_are_refused),
        BOTH(hostile_pages_are_refused),
        BOTH(a_stream_lies_anywhere),
        BOTH(version_1_is_read),
        cmocka_unit_test_setup_teardown(a_copy_is_of_one_moment, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_is_an_error, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
