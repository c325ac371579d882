/* A thread's account: every nanosecond between lane_open() and the last settlement
 * is in exactly one state.
 *
 * Time is cut into stretches by events: a wait begins or ends, the GIL is taken or
 * dropped, a reading is asked for. A stretch outside of waits is running (with the
 * GIL) or native (without it); where there is no GIL, it is running. Where the thread
 * left its core meanwhile, its CPU clock says how much of the stretch it was on one; of
 * the rest, what it stood in a run queue is cpu_wait, and what remains is blocked in the
 * kernel below our hooks: io_wait, "not named".
 *
 * A wait wins over what lies inside of it: a run-queue delay within a wait for the
 * GIL or a lock is that wait, also where the thread was preempted on its way from
 * dropping the GIL to asking for it again (lane_want). A call that may block counts as I/O only for as long as
 * the thread was off its core; copying data in the kernel is work.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint32_t generation;
__thread struct lane *my_lane __attribute__((tls_model("initial-exec")));

/* A switch costs a few microseconds that no clock claims; they belong to the queueing. */
#define SWITCH_COST 20000

/* And until a thread is back that was woken on a core which others have used meanwhile: up to this much on the core. */
#define RETURN_COST 200000

/* Who creates a thread takes a while from reading the clock to the thread's first chance to run. */
#define BIRTH_COST 100000

#define STATE_OF(kind, state, name) state,
static const enum state state_of[N_KINDS] = {KINDS(STATE_OF)};

static int64_t between(int64_t low, int64_t value, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static const struct site nowhere = {.kind = SITE_KEEP};

/* The row of this, or a free one; NULL: there is none near where it belongs. */
static struct total *row_of(struct lane *lane, enum kind kind, uint64_t object, int32_t line, int32_t file, int32_t at)
{
    uint64_t place = ((uint64_t)file << 24 ^ (uint64_t)at) * UINT64_C(0xD6E8FEB86659FD93);
    uint64_t hash = (object ^ ((uint64_t)kind << 56) ^ ((uint64_t)line << 32) ^ place) * UINT64_C(0x9E3779B97F4A7C15);
    for (int tries = 0; tries < 16; tries++) {
        struct total *total = &lane->totals[N_KINDS + ((hash >> 40) + (uint64_t)tries) % (N_TOTALS - N_KINDS)];
        bool same = total->object == object && total->kind == (int32_t)kind && total->line == line;
        if (!total->n || (same && total->file == file && total->at == at))
            return total;
    }
    return NULL;
}

/* A thread may lose the GIL anywhere: where there are too many places, rows are told apart by the cell's lines, and where there
 * are too many of these, by their kinds. All of them are exact in sum. */
static struct total *total_for(struct lane *lane, enum kind kind, uint64_t object, const struct site *site)
{
    int32_t file = site->file, at = site->at, line = site->line;
    struct total *total = row_of(lane, kind, object, line, file, at);
    if (file && (!total || (!total->n && lane->n_totals >= N_PLACED)))
        total = row_of(lane, kind, object, line, file = 0, at = 0);
    if (!total) {
        total = &lane->totals[kind];
        total->kind = kind;
        return total;
    }
    if (!total->n) {
        total->object = object;
        total->kind = kind;
        total->line = line;
        total->file = file;
        total->at = at;
        total->begin = file ? site->begin : 0;
        total->end = file ? site->end : 0;
        total->caller = kind == K_LOCK ? lane->caller : NULL;
        memcpy(total->of, site->of, sizeof total->of);
        lane->used[lane->n_totals++] = (uint16_t)(total - lane->totals);
    }
    return total;
}

/* Have the wait before end later; false: it is not among the last that were kept. */
static bool join(struct lane *lane, enum kind kind, uint64_t object, int64_t end)
{
    for (uint32_t back = 1; back <= 3 && back <= lane->n_events; back++) {
        struct event *event = &lane->events[lane->n_events - back];
        if (event->kind == (int32_t)kind && event->object == object) {
            event->end = end;
            return true;
        }
    }
    return false;
}

static void keep(struct lane *lane, enum kind kind, uint64_t object, const struct site *site, int64_t begin, int64_t end, int64_t spent,
                 int32_t holder)
{
    if (!lane->in_item && kind != K_GIL)
        return;
    bool with_gil = gil_mutex && lane->held && kind != K_GIL;
    struct total *total = total_for(lane, kind, object, site);
    bool in_slices = state_of[kind] == LOCK_WAIT || state_of[kind] == IDLE; /* what else comes between two of them is another wait */
    bool goes_on = lane->continues && in_slices;
    lane->joined = goes_on ? lane->joined + spent : in_slices ? spent : lane->joined;
    int64_t whole = goes_on ? lane->joined : spent;
    if (in_slices)
        lane->sliced = 1 + (int32_t)(total - lane->totals);
    total->n += !goes_on;
    total->sum += spent;
    total->with_gil += with_gil ? spent : 0;
    if (whole > total->max)
        total->max = whole;
    if (goes_on && join(lane, kind, object, end))
        return;
    if (spent < SHORTEST)
        return;
    uint32_t place = lane->n_events;
    if (place == N_EVENTS) {
        lane->lost++;
        return;
    }
    lane->events[place] = (struct event){begin, end, object, kind, holder, site->line, with_gil, WAITED};
    /* whoever reads a killed worker's lane sees whole events only */
    __atomic_store_n(&lane->n_events, place + 1, __ATOMIC_RELEASE);
}

/* Where the thread is, of a wait that has nothing to do with what it called there. */
static struct site place_of(struct lane *lane, int64_t spent)
{
    struct site site = spent >= SHORTEST ? frame_site(lane) : nowhere;
    return (struct site){.kind = SITE_KEEP, .line = site.line, .file = site.file, .at = site.at};
}

void lane_open(struct lane *lane, int rank, int64_t born)
{
    lane->rank = rank;
    lane->held = true;
    lane->holder = NOBODY;
    lane->schedstat = clock_open_schedstat(lane->schedstat_file);
    core_arm();
    lane->queue = clock_queue(lane->schedstat);
    lane->queue_unknown = lane->queue < 0;
    lane->queue = lane->queue < 0 ? 0 : lane->queue;
    lane->magic = MAGIC;
    lane->cpu = clock_cpu();
    lane->opened = clock_now();
    lane->mark = born && born < lane->opened ? born : lane->opened;
    __atomic_store_n(&lane->generation, generation, __ATOMIC_RELEASE);
}

/* What a thread was blocked for before its first bytecode was the GIL: there is nothing else on that way. */
void lane_birth(struct lane *lane)
{
    int64_t life = lane->opened - lane->mark;
    int64_t on = between(0, lane->cpu, life);
    int64_t waited = between(0, lane->queue, life - on);
    int64_t blocked = life - on - waited;
    if (lane->queue_unknown || !gil_mutex || blocked < BIRTH_COST) {
        on += blocked; /* the start itself, as far as is known */
        blocked = 0;
    }
    lane->spent[RUNNING] += on;
    lane->spent[CPU_WAIT] += waited;
    lane->mark = lane->opened;
    lane->spent[GIL_WAIT] += blocked;
    if (blocked)
        keep(lane, K_GIL, 0, &nowhere, lane->mark - blocked, lane->mark, blocked, NOBODY);
}

/* A thread that is switched out between two clocks would be off its core by one and not by another, and where a hypervisor takes the
 * core even the kernel does not know: they are read again until they belong to one stay on a core. What is lost meanwhile is in ``on`` or
 * it is not; a reading that is over at once is known to be in it. */
static struct reading read_clocks(struct lane *lane)
{
    struct reading reading = {.ended = clock_now()};
    int64_t queue, cpu, begin;
    int tries = 0;
    reading.began = reading.ended;
    do {
        core_arm();
        begin = reading.ended;
        queue = clock_queue(lane->schedstat);
        cpu = clock_cpu();
        reading.ended = clock_now();
    } while ((core_left() || reading.ended - begin > SWITCH_COST) && ++tries < 10);
    if (queue < 0 && hooks_lent()) /* these clocks are its own, and its descriptors are closed */
        return (struct reading){.began = lane->mark, .ended = lane->mark};
    lane->queue_unknown |= queue < 0;
    reading.queued = queue < 0 ? 0 : queue - lane->queue;
    reading.on = cpu - lane->cpu - lane->on_core;
    int64_t took = reading.ended - reading.began;
    if (took <= SWITCH_COST)
        reading.on -= took;
    lane->queue = queue < 0 ? lane->queue : queue;
    lane->cpu = cpu;
    lane->on_core = 0;
    lane->unsynced = false;
    return reading;
}

static void add_on_core(struct lane *lane, int64_t spent)
{
    lane->spent[lane->held ? RUNNING : NATIVE] += spent;
}

/* The stretch from the mark until now, of which the thread was on a core for that long.
 * Below 0: calm stretches before it had less CPU time than they lasted (interrupts, a
 * virtual machine whose host was busy); what is missing is no blocking. */
static void divide(struct lane *lane, int64_t now, int64_t on, int64_t queued)
{
    int64_t stolen = on < 0 ? -on : 0;
    on = between(0, on, now - lane->mark);
    if (lane->queue_unknown) { /* waiting for a core cannot be told from blocking: nothing is made up */
        add_on_core(lane, on);
        lane->mark = now;
        return;
    }
    int64_t off = now - lane->mark - on;
    int64_t waited = between(0, queued + stolen, off);
    int64_t blocked = off - waited;
    if (blocked < SWITCH_COST) {
        /* nobody blocks for so little: the cost of the switches, or of an interrupt */
        waited += blocked;
        blocked = 0;
    }
    add_on_core(lane, on);
    lane->spent[CPU_WAIT] += waited;
    lane->spent[IO_WAIT] += blocked;
    if (blocked) {
        struct site site = place_of(lane, blocked);
        keep(lane, K_OTHER, 0, &site, now - blocked, now, blocked, NOBODY);
    }
    lane->mark = now;
}

static int64_t settle_on_core(struct lane *lane)
{
    int64_t now = clock_now();
    lane->on_core += now - lane->mark;
    add_on_core(lane, now - lane->mark);
    lane->mark = now;
    return now;
}

/* The wait for the GIL that is about to begin has begun at the mark. */
static void began_to_wait(struct lane *lane)
{
    lane->contended = lane->unsynced = true;
    lane->holder = gil_held_by();
}

static struct reading settle(struct lane *lane)
{
    bool left = core_left();
    if (!left) {
        int64_t now = settle_on_core(lane);
        if (!lane->unsynced)
            return (struct reading){.began = now, .ended = now};
    }
    struct reading reading = read_clocks(lane);
    if (left)
        divide(lane, reading.began, reading.on, reading.queued);
    return reading;
}

/* A signal's handler may write or wait in the middle of this: within depth it is not counted. */
struct reading lane_settle_until(struct lane *lane)
{
    lane->depth++;
    struct reading reading = settle(lane);
    lane->depth--;
    return reading;
}

/* Where a reading took long, the thread was off its core meanwhile: it waits for one, or for the GIL. */
int64_t lane_skip(struct lane *lane, const struct reading *reading)
{
    int64_t took = reading->ended - lane->mark;
    if (took > SWITCH_COST && lane->wanting) {
        began_to_wait(lane);
        return reading->ended;
    }
    if (took <= SWITCH_COST)
        add_on_core(lane, took);
    else
        lane->spent[CPU_WAIT] += took;
    lane->mark = reading->ended;
    return reading->ended;
}

int64_t lane_settle(struct lane *lane)
{
    struct reading reading = lane_settle_until(lane);
    return lane_skip(lane, &reading);
}

void lane_heal(struct lane *lane)
{
    /* a jump out of a call (longjmp from a signal's handler) leaves it looking as if it went on */
    lane->depth = 0;
    lane->held = true;
    lane->wanting = lane->contended = false;
}

/* Who drops the GIL wakes who wants it, and may lose its core to that one there and then: it is back when the GIL is long taken. It has
 * called nothing in between. Where it was asked to drop the GIL, it does not go on before another has it, and then wants it back at
 * once: all of that is a wait for the GIL; else for a core. So is what it was on a core for by its clocks, which run on, or say nothing,
 * where a hypervisor takes the core away. */
void lane_gave(struct lane *lane)
{
    bool gone = core_left() && (lane->asked || lane->takes != gil_taken());
    if (!gone && !(lane->asked && clock_now() - lane->mark > SWITCH_COST))
        return;
    lane->depth++;
    int64_t begin = lane->mark;
    lane->mark = read_clocks(lane).ended;
    int64_t spent = lane->mark - begin;
    lane->dropped = lane->mark;
    lane->spent[lane->asked ? GIL_WAIT : CPU_WAIT] += spent;
    struct site site = place_of(lane, spent);
    if (lane->asked)
        keep(lane, K_GIL, 0, &site, begin, lane->mark, spent, gil_held_by());
    lane->depth--;
}

/* On the way from there to asking for it again it may be off its core once more: the time in the run queue lies within a wait for the GIL.
 *
 * Who dropped it unasked is on its way to a native call, which may be as short as a switch; who was asked may be as
 * well. What it was on a core for is native, where that is more than a switch costs; more than a
 * return costs was a call, and then it queued for a core to go on with that. */
void lane_want(struct lane *lane)
{
    bool gone_meanwhile = lane->mark == lane->dropped && lane->takes != gil_taken();
    if (!gone_meanwhile || !core_left()) {
        lane_settle(lane);
        return;
    }
    lane->depth++;
    struct reading reading = read_clocks(lane);
    int64_t elapsed = reading.began - lane->mark;
    int64_t blocked = elapsed - between(0, reading.on, elapsed) - reading.queued;
    if (reading.on > (lane->asked ? RETURN_COST : SWITCH_COST) || (blocked > SWITCH_COST && !lane->asked)) {
        divide(lane, reading.began, reading.on, reading.queued); /* it was at work, or blocked, after all */
        lane_skip(lane, &reading);
    } else {
        if (reading.on > SWITCH_COST || blocked > SWITCH_COST)
            divide(lane, reading.began - between(0, reading.queued, elapsed), reading.on, 0);
        began_to_wait(lane);
    }
    lane->depth--;
}

int64_t lane_enter(struct lane *lane, enum kind kind, const void *caller)
{
    lane->doing = kind;
    lane->caller = caller;
    lane->depth++;
    return lane_settle(lane);
}

/* Sockets, pipes and files are told apart when one of them has really blocked. */
static enum kind kind_of_descriptor(int descriptor)
{
    struct stat about;
    if (fstat(descriptor, &about))
        return K_OTHER;
    if (S_ISSOCK(about.st_mode))
        return K_SOCKET;
    return S_ISFIFO(about.st_mode) ? K_PIPE : K_FILE;
}

/* A wait within the standard library's own objects is for that object, whatever it is made of:
 * a multiprocessing.Queue waits for its pipe where a queue.Queue waits for a lock. */
static void name_it(const struct site *site, enum kind *kind, uint64_t *object)
{
    if (site->kind == K_WORK) {
        *object = 0;
        *kind = K_WORK;
    } else if (site->object && *object != STOPPED) {
        *object = site->object;
        *kind = site->kind == SITE_KEEP ? *kind : (enum kind)site->kind;
    }
}

/* The lane of a thread that was killed at ``now`` with its CPU clock at ``cpu``: what it
 * was in goes on until then. Where it was in no wait, it was on a core for as long as
 * its CPU clock says; about the rest nothing is known. */
void lane_close(struct lane *lane, int64_t now, int64_t cpu, const struct site *site, int64_t *known_until)
{
    int64_t tail = now - lane->mark;
    *known_until = now;
    if (tail <= 0) {
        *known_until = lane->mark;
        return;
    }
    if (lane->depth || lane->wanting) {
        enum kind kind = lane->wanting ? K_GIL : (enum kind)lane->doing;
        uint64_t object = 0;
        if (site && kind != K_GIL && kind != K_SLEEP)
            name_it(site, &kind, &object);
        lane->spent[state_of[kind]] += tail;
        keep(lane, kind, object, site ? site : &nowhere, lane->mark, now, tail, lane->wanting ? lane->holder : NOBODY);
    } else {
        int64_t on = between(0, cpu - lane->cpu - lane->on_core, tail);
        add_on_core(lane, on);
        *known_until = lane->mark + on;
    }
}

/* From CPython 3.13 on, who waits for a lock of the interpreter's parks in a semaphore on
 * its own stack. The word before that is the lock's address (Python/parking_lot.c), but for
 * the few locks that the parking itself needs: there it is any number (Python/lock.c). */
static uint64_t parked_at(const struct lane *lane, uint64_t semaphore)
{
    uint64_t above = semaphore - (uint64_t)(uintptr_t)__builtin_frame_address(0);
    if (above >= NEAR)
        return semaphore;
    uint64_t lock = ((const uint64_t *)(uintptr_t)semaphore)[-1];
    return thread_is_stopped_at(lane, lock) ? STOPPED : lock;
}

void lane_leave(struct lane *lane, enum kind kind, uint64_t object, int64_t begin)
{
    /* not where the run is over by now: the interpreter may be gone, and our frames with it */
    if (lane_here() == lane && core_left()) {
        struct reading reading = read_clocks(lane);
        int64_t elapsed = reading.began - begin;
        int64_t on = between(0, reading.on, elapsed);
        if (kind == K_FILE)
            kind = kind_of_descriptor((int)object);
        struct site site = nowhere;
        const void *library;
        if (lane->in_item && kind == K_SLEEP)
            site = place_of(lane, elapsed); /* who polls for work, and sleeps between, is asleep */
        else if (lane->in_item && elapsed >= SHORTEST)
            site = frame_site(lane);
        if (kind == K_LOCK)
            object = parked_at(lane, object);
        if (kind == K_LOCK && !site.object && lane->event && (library = library_of(lane->caller)))
            object = (uint64_t)(uintptr_t)library;
        name_it(&site, &kind, &object);
        enum state state = state_of[kind];
        if (state != IO_WAIT)
            on = 0; /* the way into a lock and out of it is part of the wait */
        add_on_core(lane, on);
        lane->spent[state] += elapsed - on;
        keep(lane, kind, object, &site, begin, reading.began, elapsed - on, NOBODY);
        lane->mark = reading.began;
        lane_skip(lane, &reading);
    }
    lane->depth--;
}

void lane_waits_on(struct lane *lane, int64_t begin)
{
    lane->depth++;
    struct reading reading = read_clocks(lane);
    lane->depth--;
    int64_t spent = reading.ended - begin;
    struct total *total = lane->in_item && lane->sliced ? &lane->totals[lane->sliced - 1] : NULL;
    lane->spent[total ? state_of[total->kind] : LOCK_WAIT] += spent;
    lane->mark = reading.ended;
    if (!total)
        return;
    lane->joined += spent;
    total->sum += spent;
    total->max = lane->joined > total->max ? lane->joined : total->max;
    join(lane, (enum kind)total->kind, total->object, reading.ended);
}

/* The GIL is ours. Nobody had it, but where that took long, the thread was kept from asking for it. */
void lane_took(struct lane *lane)
{
    if (lane->contended)
        lane_waited(lane, K_GIL, 0, lane->mark, lane->holder);
    else if (lane->wanting && clock_now() - lane->mark > SWITCH_COST)
        lane_waited(lane, K_GIL, 0, lane->mark, NOBODY);
    lane->held = true;
    lane->wanting = lane->contended = false;
}

/* The GIL is ours after a wait. Its mutex is held now: nothing here may be a system
 * call, so the clocks are read later (unsynced). */
void lane_waited(struct lane *lane, enum kind kind, uint64_t object, int64_t begin, int32_t holder)
{
    lane->unsynced |= core_left();
    if (lane->unsynced)
        core_arm(); /* before the clock: who is preempted between the two has left its core behind the wait */
    int64_t end = clock_now();
    lane->spent[state_of[kind]] += end - begin;
    lane->mark = end;
    if (!lane->unsynced)
        lane->on_core += end - begin; /* it never slept for it: the CPU clock ran on */
    struct site site = place_of(lane, end - begin);
    keep(lane, kind, object, &site, begin, end, end - begin, holder);
}
