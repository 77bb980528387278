/*
 * control_keys.c - keys that are pressed through the control socket.
 *
 * A PS/2 keyboard keeps 16 bytes; what is more is lost. So keys are queued here and pressed when
 * there is room, looked for every few milliseconds while there is something in the queue.
 */
#include <linux/input-event-codes.h>
#include <string.h>

#include "vmm/control_int.h"

#define TICK_MS  5
#define PATIENCE 2000 /* ticks: 10 s */
#define RELEASED 0x8000u

/* QKeyCode names of QEMU's (qapi/ui.json) and the codes of Linux' input layer. */
static const struct {
    const char *name;
    uint16_t key;
} names[] = {
    {"shift", KEY_LEFTSHIFT},
    {"shift_r", KEY_RIGHTSHIFT},
    {"alt", KEY_LEFTALT},
    {"alt_r", KEY_RIGHTALT},
    {"ctrl", KEY_LEFTCTRL},
    {"ctrl_r", KEY_RIGHTCTRL},
    {"menu", KEY_COMPOSE},
    {"esc", KEY_ESC},
    {"minus", KEY_MINUS},
    {"equal", KEY_EQUAL},
    {"backspace", KEY_BACKSPACE},
    {"tab", KEY_TAB},
    {"bracket_left", KEY_LEFTBRACE},
    {"bracket_right", KEY_RIGHTBRACE},
    {"ret", KEY_ENTER},
    {"enter", KEY_ENTER},
    {"semicolon", KEY_SEMICOLON},
    {"apostrophe", KEY_APOSTROPHE},
    {"grave_accent", KEY_GRAVE},
    {"backslash", KEY_BACKSLASH},
    {"comma", KEY_COMMA},
    {"dot", KEY_DOT},
    {"slash", KEY_SLASH},
    {"spc", KEY_SPACE},
    {"space", KEY_SPACE},
    {"caps_lock", KEY_CAPSLOCK},
    {"num_lock", KEY_NUMLOCK},
    {"scroll_lock", KEY_SCROLLLOCK},
    {"print", KEY_SYSRQ},
    {"sysrq", KEY_SYSRQ},
    {"pause", KEY_PAUSE},
    {"home", KEY_HOME},
    {"pgup", KEY_PAGEUP},
    {"pgdn", KEY_PAGEDOWN},
    {"end", KEY_END},
    {"left", KEY_LEFT},
    {"up", KEY_UP},
    {"down", KEY_DOWN},
    {"right", KEY_RIGHT},
    {"insert", KEY_INSERT},
    {"delete", KEY_DELETE},
    {"del", KEY_DELETE},
    {"meta_l", KEY_LEFTMETA},
    {"meta_r", KEY_RIGHTMETA},
    {"less", KEY_102ND},
    {"f1", KEY_F1},
    {"f2", KEY_F2},
    {"f3", KEY_F3},
    {"f4", KEY_F4},
    {"f5", KEY_F5},
    {"f6", KEY_F6},
    {"f7", KEY_F7},
    {"f8", KEY_F8},
    {"f9", KEY_F9},
    {"f10", KEY_F10},
    {"f11", KEY_F11},
    {"f12", KEY_F12},
};

/* The rows of a US keyboard, in the order of their codes. */
static const struct {
    const char *plain, *shifted;
    uint16_t first;
} rows[] = {
    {"1234567890-=", "!@#$%^&*()_+", KEY_1},
    {"qwertyuiop[]", "QWERTYUIOP{}", KEY_Q},
    {"asdfghjkl;'`", "ASDFGHJKL:\"~", KEY_A},
    {"\\zxcvbnm,./", "|ZXCVBNM<>?", KEY_BACKSLASH},
    {"\n", "", KEY_ENTER},
    {"\t", "", KEY_TAB},
    {" ", "", KEY_SPACE},
    {"\b", "", KEY_BACKSPACE},
    {"\033", "", KEY_ESC},
};

bool control_char_keys(char ch, uint16_t *key, bool *shift)
{
    for (unsigned i = 0; ch && i < ARRAY_LEN(rows); i++) {
        const char *p = strchr(rows[i].plain, ch), *s = strchr(rows[i].shifted, ch);
        if (!p && !s)
            continue;
        *shift = !p;
        *key = (uint16_t)(rows[i].first + (p ? p - rows[i].plain : s - rows[i].shifted));
        return true;
    }
    return false;
}

bool control_key_code(const char *name, uint16_t *key)
{
    bool shift;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i].name, name) == 0) {
            *key = names[i].key;
            return true;
        }
    return strlen(name) == 1 && control_char_keys(name[0], key, &shift) && !shift;
}

bool control_keys_add(struct control *c, const uint16_t *events, size_t n)
{
    struct control_keys *k = &c->keys;
    if (n > CONTROL_KEYS - k->used)
        return false;
    for (size_t i = 0; i < n; i++)
        k->key[(k->head + k->used++) % CONTROL_KEYS] = events[i];
    return true;
}

static void finish(struct control *c, int rc)
{
    struct client *owner = c->keys.owner;
    struct control_call call = {.c = c, .client = owner};
    c->keys.owner = NULL;
    c->keys.used = 0;
    uv_timer_stop(&c->keys.timer);
    if (rc)
        error_set(&call.e, rc, "the guest does not read its keyboard; the other keys are dropped");
    if (owner)
        control_reply(owner, &call, rc);
}

static void on_tick(uv_timer_t *t)
{
    struct control *c = t->data;
    struct control_keys *k = &c->keys;
    pthread_mutex_lock(&c->vm->lock);
    while (k->used && pc_key_room(c->vm->pc)) {
        uint16_t ev = k->key[k->head];
        k->head = (k->head + 1) % CONTROL_KEYS;
        k->used--;
        k->patience = 0;
        pc_key(c->vm->pc, ev & ~RELEASED, !(ev & RELEASED));
    }
    pthread_mutex_unlock(&c->vm->lock);
    if (!k->used)
        finish(c, 0);
    else if (++k->patience > PATIENCE)
        finish(c, ERR_TIMEOUT);
}

void control_keys_start(struct control *c, struct client *owner)
{
    c->keys.owner = owner;
    c->keys.patience = 0;
    uv_timer_start(&c->keys.timer, on_tick, TICK_MS, TICK_MS);
}
