/* atapi_reply.c - replies of a CD-ROM drive. Clauses are of MMC-3 unless another standard is named.
 */
#include "chip/atapi_reply.h"

#include <stdio.h>
#include <string.h>

#include "base/endian.h"

#define LEAD_OUT       0xaau
#define LEAD_IN_BLOCKS 150u /* the two seconds before block 0 in minute-second-frame addresses */
#define CD_MAX_BLOCKS  450000u
#define PROFILE_CD     0x0008
#define PROFILE_DVD    0x0010
#define SPEED_KBPS     7056 /* 40x */

uint32_t atapi_sectors(const struct ide_drive *d)
{
    if (!d->blk)
        return 0;
    uint64_t size = d->blk->size;
    return (uint32_t)min_u64(size / IDE_CD_SECTOR + (size % IDE_CD_SECTOR ? 1 : 0), UINT32_MAX);
}

/* SPC-2, 7.3.2. */
uint32_t atapi_inquiry(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    if (cdb[1] & 3)
        return 0;  /* no vital product data */
    buf[0] = 0x05; /* CD-ROM */
    buf[1] = 0x80; /* removable */
    buf[3] = 0x21; /* ATAPI, response format 1 */
    buf[4] = 36 - 5;
    char id[29];
    snprintf(id, sizeof id, "%-8.8s%-16.16s%-4.4s", "SOSIA", d->model, "1.0");
    memcpy(buf + 8, id, 28);
    return 36;
}

/* SPC-2, 7.23.2: fixed format. Reading sense data consumes it. */
uint32_t atapi_request_sense(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    if (!d->cd.key && d->cd.attention) {
        d->cd.attention = false;
        d->cd.key = 0x06;
        d->cd.asc = 0x28;
    }
    buf[0] = 0x70;
    buf[2] = d->cd.key;
    buf[7] = 18 - 8;
    buf[12] = d->cd.asc;
    buf[13] = d->cd.ascq;
    d->cd.key = d->cd.asc = d->cd.ascq = 0;
    return 18;
}

/* 6.1.10 (READ CAPACITY): the last address, not the number. */
uint32_t atapi_read_capacity(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    uint32_t n = atapi_sectors(d);
    store_be32(buf, n ? n - 1 : 0);
    store_be32(buf + 4, IDE_CD_SECTOR);
    return 8;
}

/* ---- READ TOC, 6.26 ---- */

static void put_msf(uint8_t *p, uint32_t block)
{
    uint64_t frames = (uint64_t)block + LEAD_IN_BLOCKS;
    p[0] = (uint8_t)min_u64(frames / (75 * 60), 255);
    p[1] = (uint8_t)(frames / 75 % 60);
    p[2] = (uint8_t)(frames % 75);
}

static void put_address(uint8_t *p, uint32_t block, bool msf)
{
    if (msf)
        put_msf(p + 1, block);
    else
        store_be32(p, block);
}

/* A track descriptor of formats 0 and 1: a data track, digital copies permitted. */
static uint32_t put_track(uint8_t *p, uint8_t track, uint32_t block, bool msf)
{
    p[1] = 0x14;
    p[2] = track;
    put_address(p + 4, block, msf);
    return 8;
}

/* Format 0: one track and the lead-out, from the given track on. */
static uint32_t toc_tracks(const struct ide_drive *d, uint8_t from, bool msf, uint8_t *buf)
{
    uint32_t n = 4;
    if (from > 1 && from != LEAD_OUT)
        return 0;
    if (from <= 1)
        n += put_track(buf + n, 1, 0, msf);
    return n + put_track(buf + n, LEAD_OUT, atapi_sectors(d), msf);
}

/* An entry of format 2: what the lead-in says at POINT. */
static uint32_t put_point(uint8_t *p, uint8_t point, uint8_t min, uint8_t sec, uint8_t frame)
{
    p[0] = 1; /* session */
    p[1] = 0x14;
    p[3] = point;
    p[8] = min;
    p[9] = sec;
    p[10] = frame;
    return 11;
}

static uint32_t toc_raw(const struct ide_drive *d, uint8_t *buf)
{
    uint8_t end[3], start[3];
    uint32_t n = 4;
    put_msf(end, atapi_sectors(d));
    put_msf(start, 0);
    n += put_point(buf + n, 0xa0, 1, 0, 0);
    n += put_point(buf + n, 0xa1, 1, 0, 0);
    n += put_point(buf + n, 0xa2, end[0], end[1], end[2]);
    return n + put_point(buf + n, 1, start[0], start[1], start[2]);
}

uint32_t atapi_read_toc(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    bool msf = cdb[1] & 2;
    unsigned format = cdb[2] & 0x0f;
    uint32_t n;
    if (!format)
        format = cdb[9] >> 6; /* where SFF-8020 had it */
    switch (format) {
    case 0:
        n = toc_tracks(d, cdb[6], msf, buf);
        break;
    case 1:
        n = 4 + put_track(buf + 4, 1, 0, msf);
        break;
    case 2:
        n = toc_raw(d, buf);
        break;
    default:
        return 0;
    }
    if (n)
        store_be16(buf, (uint16_t)(n - 2));
    buf[2] = buf[3] = 1; /* first and last track, or session */
    return n;
}

/* ---- MODE SENSE, 5.5 ---- */

static uint32_t page_error_recovery(uint8_t *p)
{
    p[0] = 0x01;
    p[1] = 10;
    p[3] = 5; /* retries */
    return 12;
}

static uint32_t page_capabilities(const struct ide_drive *d, uint8_t *p)
{
    p[0] = 0x2a;
    p[1] = 18;
    p[2] = 0x0b;                       /* reads CD-R, CD-RW, DVD-ROM */
    p[6] = d->cd.locked ? 0x2b : 0x29; /* a tray, which ejects and can be locked */
    store_be16(p + 8, SPEED_KBPS);
    store_be16(p + 12, 512); /* KiB of buffer */
    store_be16(p + 14, SPEED_KBPS);
    return 20;
}

/* The pages that a packet asks for by its byte 2; 0: unknown page, or saved values, of which there
 * are none. No value can be changed. */
static uint32_t mode_pages(const struct ide_drive *d, uint8_t which, uint8_t *p)
{
    uint8_t page = which & 0x3f;
    uint32_t n = 0;
    if (which >> 6 == 3)
        return 0;
    if (page == 0x01 || page == 0x3f)
        n += page_error_recovery(p + n);
    if (page == 0x2a || page == 0x3f)
        n += page_capabilities(d, p + n);
    return n;
}

static uint8_t medium_type(const struct ide_drive *d)
{
    return d->cd.tray_open ? 0x71 : d->blk ? 0x01 : 0x70;
}

uint32_t atapi_mode_sense6(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    uint32_t n = mode_pages(d, cdb[2], buf + 4);
    if (!n)
        return 0;
    buf[0] = (uint8_t)(n + 3);
    buf[1] = medium_type(d);
    return n + 4;
}

uint32_t atapi_mode_sense10(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    uint32_t n = mode_pages(d, cdb[2], buf + 8);
    if (!n)
        return 0;
    store_be16(buf, (uint16_t)(n + 6));
    buf[2] = medium_type(d);
    return n + 8;
}

/* ---- events, features, state ---- */

/* 6.7 (GET EVENT STATUS NOTIFICATION): polled only; of all classes, just the media events. */
uint32_t atapi_event_status(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    if (!(cdb[1] & 1))
        return 0;
    buf[3] = 0x10; /* supported classes */
    if (!(cdb[4] & 0x10)) {
        store_be16(buf, 2);
        buf[2] = 0x80; /* no event available */
        return 4;
    }
    store_be16(buf, 6);
    buf[2] = 0x04;
    buf[4] = d->cd.event;
    buf[5] = (uint8_t)((d->cd.tray_open ? 1 : 0) | (atapi_medium(d) ? 2 : 0));
    d->cd.event = 0;
    return 8;
}

/* A feature descriptor's header (5.2.2); returns where its data goes. */
static uint8_t *put_feature(uint8_t **p, uint16_t code, uint8_t flags, uint8_t len)
{
    uint8_t *data = *p + 4;
    store_be16(*p, code);
    (*p)[2] = flags;
    (*p)[3] = len;
    *p = data + len;
    return data;
}

static uint16_t current_profile(const struct ide_drive *d)
{
    if (!atapi_medium(d))
        return 0;
    return atapi_sectors(d) > CD_MAX_BLOCKS ? PROFILE_DVD : PROFILE_CD;
}

enum { CURRENT = 1, PERSISTENT = 2, VERSION1 = 4 };

static void put_profiles(const struct ide_drive *d, uint8_t **p)
{
    uint8_t *data = put_feature(p, 0x0000, PERSISTENT | CURRENT, 8);
    uint16_t profile = current_profile(d);
    store_be16(data, PROFILE_DVD);
    data[2] = profile == PROFILE_DVD;
    store_be16(data + 4, PROFILE_CD);
    data[6] = profile == PROFILE_CD;
}

/* 6.6 (GET CONFIGURATION). RT: 0 all features, 1 current ones, 2 just the one named. */
uint32_t atapi_get_configuration(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    unsigned rt = cdb[1] & 3, first = load_be16(cdb + 2);
    uint8_t *p = buf + 8;
    if (rt == 3)
        return 0;
    for (unsigned code = first; code <= 3 && (rt != 2 || code == first); code++) {
        switch (code) {
        case 0: /* profile list */
            put_profiles(d, &p);
            break;
        case 1: /* core: ATAPI */
            store_be32(put_feature(&p, 1, PERSISTENT | CURRENT, 4), 2);
            break;
        case 2: /* morphing: operational change events are not reported */
            put_feature(&p, 2, VERSION1 | PERSISTENT | CURRENT, 4);
            break;
        default: /* removable medium: tray, ejects, locks */
            *put_feature(&p, 3, PERSISTENT | CURRENT, 4) = 0x29;
            break;
        }
    }
    uint32_t n = (uint32_t)(p - buf);
    store_be32(buf, n - 4);
    store_be16(buf + 6, current_profile(d));
    return n;
}

/* 6.22: a finished disc with one session of one track. */
uint32_t atapi_disc_information(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    if (cdb[1] & 7)
        return 0;
    store_be16(buf, 34 - 2);
    buf[2] = 0x0e;                         /* session and disc are complete */
    buf[3] = buf[4] = buf[5] = buf[6] = 1; /* tracks and sessions */
    buf[7] = 0x20;                         /* unrestricted use */
    memset(buf + 16, 0xff, 8);             /* no further lead-in or lead-out */
    return 34;
}

/* 6.11: no changer. */
uint32_t atapi_mechanism_status(struct ide_drive *d, const uint8_t *cdb, uint8_t *buf)
{
    buf[1] = d->cd.tray_open ? 0x10 : 0;
    buf[5] = 1;
    return 8;
}

/* ---- packets that do something ---- */

/* 6.42: with LoEj, Start closes the tray and its absence opens it. */
int atapi_start_stop(struct ide_drive *d, const uint8_t *cdb)
{
    bool load_eject = cdb[4] & 2, start = cdb[4] & 1;
    if ((cdb[4] & 0xf0) || !load_eject)
        return 0; /* power conditions, spinning up and down */
    if (!start && d->cd.locked)
        return 0x055302;
    if (start && d->cd.tray_open && d->blk) {
        d->cd.attention = true;
        d->cd.event = 2;
    } else if (!start && atapi_medium(d)) {
        d->cd.event = 3;
    }
    d->cd.tray_open = !start;
    return 0;
}

/* 6.15: any or mode 1 sectors, of which only the user data can be had. */
int atapi_decode_read_cd(const uint8_t *cdb, uint32_t *lba, uint32_t *count)
{
    unsigned type = (cdb[1] >> 2) & 7, parts = cdb[9] & 0xf8;
    *lba = load_be32(cdb + 2);
    *count = (uint32_t)cdb[6] << 16 | load_be16(cdb + 7);
    if ((type != 0 && type != 2) || (cdb[10] & 7))
        return 0x056400;
    if (!parts)
        *count = 0;
    return parts && parts != 0x10 ? 0x052400 : 0;
}
