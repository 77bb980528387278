/*
 * virtio_console.c - one port: receive queue 0, transmit queue 1.
 *
 * Backpressure. Output that the back end does not take stays in its chain, which is held until the
 * back end says `drained`. Input waits in a small FIFO until the driver offers buffers; the FIFO's
 * free space is what the back end may push. Neither direction loses a byte while the driver lives.
 *
 * One call moves at most KICK_BYTES and KICK_CHAINS. Event indices are not offered, so that
 * each addition notifies and what was left over is taken up by the next call.
 */
#include "virtio/virtio_console.h"

#include <string.h>

#include "base/endian.h"

enum { RX, TX };

#define QUEUE_SIZE  64
#define KICK_CHAINS (2u * QUEUE_SIZE)
#define KICK_BYTES  (1 * MIB)

#define F_EMERG_WRITE (1u << 2)
#define CONFIG_EMERG  8 /* le32 emerg_wr */
#define CONFIG_LEN    12

static struct virtio_console *console_of(struct virtio_dev *v)
{
    return CONTAINER_OF(v, struct virtio_console, v);
}

/* ---- device to host ---- */

/* Offers the rest of the held chain to the back end; true when all of it is gone. */
static bool send(struct virtio_console *d, uint64_t *budget)
{
    uint8_t buf[1024];
    while (d->sent < d->tx.read_len && *budget) {
        size_t n = vchain_read(&d->tx, d->sent, buf, min_u64(sizeof buf, *budget));
        size_t took = char_write(&d->out, buf, n);
        d->sent += took;
        *budget -= took;
        if (took < n)
            return false;
    }
    return d->sent == d->tx.read_len;
}

static void transmit(struct virtio_console *d)
{
    uint64_t budget = KICK_BYTES;
    bool any = false;
    for (unsigned n = 0; n < KICK_CHAINS; n++) {
        if (!d->sending) {
            if (!virtio_pop(&d->v, TX, &d->tx))
                break;
            d->sending = true;
            d->sent = 0;
        }
        if (!send(d, &budget))
            break;
        d->sending = false;
        virtio_push(&d->v, TX, &d->tx, 0);
        any = true;
    }
    if (any)
        virtio_signal(&d->v, TX);
}

static void drained(void *dev)
{
    struct virtio_console *d = dev;
    if (virtio_queue_usable(&d->v, TX))
        transmit(d);
}

/* ---- host to device ---- */

/* Moves the front of the FIFO into one chain; returns how much. */
static uint32_t receive_into(struct virtio_console *d, const struct vchain *c)
{
    uint32_t done = 0;
    while (d->count && done < c->write_len) {
        unsigned run = (unsigned)min_u64(d->count, VCON_FIFO - d->head);
        size_t n =
            vchain_write(d->v.mem, c, done, d->fifo + d->head, min_u64(run, c->write_len - done));
        d->head = (d->head + (unsigned)n) % VCON_FIFO;
        d->count -= (unsigned)n;
        done += (uint32_t)n;
    }
    return done;
}

static void receive(struct virtio_console *d)
{
    struct vchain c;
    bool any = false;
    for (unsigned n = 0; n < KICK_CHAINS && d->count && virtio_pop(&d->v, RX, &c); n++) {
        virtio_push(&d->v, RX, &c, receive_into(d, &c));
        any = true;
    }
    if (any)
        virtio_signal(&d->v, RX);
}

/* Input for a driver that is not there is refused, as is input to a full FIFO. */
static size_t room(void *dev)
{
    const struct virtio_console *d = dev;
    return virtio_queue_usable(&d->v, RX) ? VCON_FIFO - d->count : 0;
}

/* The back end looks at room() again by itself, so it is not told. */
static void push(void *dev, const uint8_t *buf, size_t len)
{
    struct virtio_console *d = dev;
    size_t n = min_u64(len, VCON_FIFO - d->count);
    for (size_t i = 0; i < n; i++)
        d->fifo[(d->head + d->count++) % VCON_FIFO] = buf[i];
    receive(d);
}

struct char_in virtio_console_input(struct virtio_console *d)
{
    return (struct char_in){.room = room, .push = push, .drained = drained, .dev = d};
}

/* ---- the device ---- */

static uint64_t features(struct virtio_dev *v)
{
    return F_EMERG_WRITE;
}

/* 5.3.4: no size is known, one port, nothing to read from emerg_wr. */
static void config_read(struct virtio_dev *v, unsigned off, uint8_t *buf, unsigned len)
{
    uint8_t c[CONFIG_LEN] = {0};
    store_le32(c + 4, 1); /* max_nr_ports */
    memcpy(buf, c + off, len);
}

/* 5.3.4: a character at any time, even before the driver is ready; lost if the back end is full. */
static void config_write(struct virtio_dev *v, unsigned off, const uint8_t *buf, unsigned len)
{
    if (off == CONFIG_EMERG)
        char_write(&console_of(v)->out, buf, 1);
}

static void kick(struct virtio_dev *v, unsigned q)
{
    struct virtio_console *d = console_of(v);
    if (q == TX) {
        transmit(d);
        return;
    }
    receive(d);
    if (room(d) && d->ready.fn) /* also when the driver has just come up: input may start */
        d->ready.fn(d->ready.ctx);
}

static void queue_stop(struct virtio_dev *v, unsigned q)
{
    struct virtio_console *d = console_of(v);
    if (q == TX && d->sending) {
        d->sending = false;
        virtio_drop(v, TX, &d->tx);
    }
    if (q == RX)
        d->head = d->count = 0;
}

static const struct virtio_ops ops = {
    .name = "virtio-console",
    .id = 3,
    .class_rev = 0x07800001, /* communication controller, other; revision 1 */
    .nqueue = 2,
    .queue_max = QUEUE_SIZE,
    .config_len = CONFIG_LEN,
    .features = features,
    .config_read = config_read,
    .config_write = config_write,
    .kick = kick,
    .queue_stop = queue_stop,
};

void virtio_console_init(struct virtio_console *d, struct space *mem, struct char_out out,
                         struct char_ready ready)
{
    *d = (struct virtio_console){.out = out, .ready = ready};
    virtio_init(&d->v, &ops, mem);
}

/* ---- state ---- */

/* The chain that the back end did not take whole is known by its head. */
static int post_load(void *dev, struct error *e)
{
    struct virtio_console *d = dev;
    uint16_t head = d->tx.head;
    if (!d->sending)
        return 0;
    if (!d->v.queue[TX].ring.enabled)
        return error_set(e, ERR_FORMAT, "sending: there is no queue");
    virtio_retake(&d->v, TX, head, &d->tx);
    d->sent = min_u64(d->sent, d->tx.read_len);
    return 0;
}

static const struct field tx_fields[] = {
    FIELD(struct vchain, head),          FIELD_NONE(struct vchain, gen),
    FIELD_NONE(struct vchain, nread),    FIELD_NONE(struct vchain, nwrite),
    FIELD_NONE(struct vchain, read_len), FIELD_NONE(struct vchain, write_len),
    FIELD_NONE(struct vchain, iov),
};
static const struct field_table tx_table = FIELD_TABLE(struct vchain, "vchain", tx_fields);

static const struct field fields[] = {
    FIELD_STRUCT(struct virtio_console, v, virtio_fields),
    FIELD_NONE(struct virtio_console, out),
    FIELD_NONE(struct virtio_console, ready),
    FIELD_ARRAY(struct virtio_console, fifo),
    FIELD(struct virtio_console, head, .max = VCON_FIFO - 1),
    FIELD(struct virtio_console, count, .max = VCON_FIFO),
    FIELD(struct virtio_console, sending),
    FIELD(struct virtio_console, sent),
    FIELD_STRUCT(struct virtio_console, tx, tx_table),
};
const struct field_table virtio_console_fields =
    FIELD_TABLE(struct virtio_console, "virtio_console", fields, .post_load = post_load);
