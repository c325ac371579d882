/* What the parts of parmagic.record._waits share.
 *
 *   objects.c what is loaded, and the slots through which it calls what we hook
 *   got.c     points these slots at our hooks, and back
 *   clock.c   the clocks, and whether this thread has left its core
 *   lane.c    a thread's account: where each nanosecond went
 *   gil.c     the GIL's addresses, and who holds it
 *   frames.c  where a thread is: on which line of the cell, and really
 *   files.c   the names of files, kept in a thread's account
 *   hooks.c   what runs in place of the functions that wait
 *   holds.c   who has which of Python's locks
 *   semlocks.c the same of locks between processes, and who has them in other ones
 *   simple.c  queues that are in C, and joins
 *   exchanges.c messages between processes: how many, how large; and who waits for one that may never come
 *   orders.c  in which order locks are taken
 *   made.c    where locks were made
 *   handovers.c single waits, with who let them end
 *   levels.c  how full semaphores, barriers and queues are
 *   module.c  the face that Python sees
 *
 * Nothing here allocates, locks or calls Python while a thread waits.
 */
#ifndef PARMAGIC_WAITS_H
#define PARMAGIC_WAITS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What crosses to Python as a number, with the names that it has there. module.c tells Python these tables; where its own
 * differ, it does without us (record.hooks). Change VERSION, too, where something comes to mean something else. */
#define VERSION 3

/* The states of a worker's time that are measured here: model.kinds.MEASURED. */
#define STATES(X)             \
    X(RUNNING, "running")     \
    X(NATIVE, "native")       \
    X(GIL_WAIT, "gil_wait")   \
    X(LOCK_WAIT, "lock_wait") \
    X(IO_WAIT, "io_wait")     \
    X(SLEEP, "sleep")         \
    X(CPU_WAIT, "cpu_wait")   \
    X(IDLE, "idle")

/* What a thread waited for, and what that counts as: model.kinds.WAIT_KINDS. */
#define KINDS(X)                     \
    X(K_GIL, GIL_WAIT, "gil")        \
    X(K_LOCK, LOCK_WAIT, "lock")     \
    X(K_SLEEP, SLEEP, "sleep")       \
    X(K_SOCKET, IO_WAIT, "socket")   \
    X(K_POLL, IO_WAIT, "poll")       \
    X(K_FILE, IO_WAIT, "file")       \
    X(K_PIPE, IO_WAIT, "pipe")       \
    X(K_CHILD, IO_WAIT, "child")     \
    X(K_OTHER, IO_WAIT, "not named") \
    X(K_QUEUE, LOCK_WAIT, "queue")   \
    X(K_WORK, IDLE, "work")

/* What an event tells: model.kinds.EVENTS. Nobody writes the last two yet. */
#define EVENTS(X)       \
    X(WAITED, "waited") \
    X(TOOK, "took")     \
    X(RELEASED, "released")

/* An event: model.waits.Wait and WAIT_LAYOUT. Times are ns on CLOCK_MONOTONIC. The object is the address of what was
 * waited for, its Python object's, or that at which the library begins that waits for its own threads; a descriptor for I/O; 0: none. The holder is the rank that held the GIL when the
 * wait began, or NOBODY. The line is of the cell, or 0. with_gil is 1 where the thread was blocked while holding the GIL. */
#define EVENT_FIELDS(X)  \
    X(int64_t, begin)    \
    X(int64_t, end)      \
    X(uint64_t, object)  \
    X(int32_t, kind)     \
    X(int32_t, holder)   \
    X(int32_t, line)     \
    X(int16_t, with_gil) \
    X(int16_t, what)

#define IDENTIFIER(id, ...) id,
enum state { STATES(IDENTIFIER) N_STATES };
enum kind { KINDS(IDENTIFIER) N_KINDS };
enum what { EVENTS(IDENTIFIER) N_WHATS };

#define FIELD(type, name) type name;
#define SIZE(type, name) +sizeof(type)
struct event {
    EVENT_FIELDS(FIELD)
};
_Static_assert(sizeof(struct event) == 0 EVENT_FIELDS(SIZE), "an event crosses to Python as it is: without holes");

#define N_EVENTS 131072  /* kept between two reports of a worker; memory is used as it fills */
#define N_TOTALS 1024    /* different things waited for in an arm; what does not fit shares a row */
#define N_PLACED 512     /* so many of them are told apart by their places as well */
#define N_FILES 64       /* that these places are in */
#define LONGEST_NAME 244 /* bytes of a file's name; of a longer one, its end */
#define LONGEST_OF 24    /* bytes of a class's name, with the zero */
#define SHORTEST 1000    /* ns: shorter waits are counted, and not kept */
#define NEAR 4096        /* bytes of a stack: what the functions that called us use */
#define NOBODY (-1)
#define STOPPED UINT64_MAX /* in place of an object: the interpreter had stopped all threads (hooks.STOPPED) */
#define MAGIC (UINT64_C(0x7061726d61676963) ^ sizeof(struct lane))

/* What a row of ``detach`` has of each: record.hooks compares. ``file`` and ``at`` are where the wait was, and ``begin`` to ``end``
 * the bytes of that line which say what was done there; ``of`` is the class of the standard library's that was waited for, ``inside``
 * the native library that has the lock. */
#define TOTAL_FIELDS(X) X(kind) X(object) X(line) X(n) X(total_s) X(max_s) X(with_gil_s) X(file) X(at) X(begin) X(end) X(of) X(inside)

struct total {
    uint64_t object;
    int32_t kind, line;
    int32_t file, at;     /* a place in files, counted from 1, or 0; and the line there */
    int32_t begin, end;   /* of what the first of these did there, in bytes of the line; an end of 0: it goes on in the next */
    const void *caller;   /* what called the function that waited, for a lock */
    int64_t n, sum, max, with_gil;
    char of[LONGEST_OF];
};

struct file {
    uint32_t hash, length; /* 0: free */
    char name[LONGEST_NAME];
};

struct _object;

#define N_SYNCS 512   /* things that a worker takes, by method; the first is for the rest */
#define N_HELD 64     /* that it has at a time */
#define N_HANDOFFS 256 /* different waits for each other, the last of them the rest */
#define N_HANDOVERS 1024 /* the longest single waits */
#define N_PERMITS 64  /* of semaphores, that it has at a time */
#define N_BUCKETS 40  /* of waits, by powers of two: up to 9 minutes */

struct level;
enum side { PUTS, GETS, N_SIDES };

/* What a worker did with a lock, or with what it is part of, in one method of that. */
struct sync_row {
    uint64_t thing;
    struct level *level; /* the thing's; NULL: it has none */
    struct _object *made; /* the code that made it, or NULL, and at which of its instructions */
    int32_t made_at;
    const void *method;  /* the code of the method, or NULL: a lock, by itself */
    char of[LONGEST_OF], name[LONGEST_OF];
    int64_t n, contended, wait, wait_max, hold, hold_max, blocked, bytes, pickle;
    uint32_t waits[N_BUCKETS];
};

struct held {
    struct _object *lock;    /* of which an own reference is kept: who has it may forget it */
    struct _object *code;    /* that took it, and at which of its instructions */
    int32_t at;
    struct sync_row *row;
    int64_t since, blocked;
    int depth;
    bool whole;              /* to have the lock is to have the thing */
    bool own;                /* nobody else lets go of it */
    uint64_t thing;          /* that the lock is part of, or is */
    uint64_t number;         /* of the lock, as it has in orders; 0: in none */
    int64_t level;           /* of the thing, when the lock was taken */
};

/* A semaphore has let it in. */
struct permit {
    struct level *level;
    struct sync_row *row;
    int64_t since, blocked;
};

/* A place in Python code: of which an own reference is kept. */
struct place {
    struct _object *code;
    int32_t line;
};

/* Waits for a thing at one place that one thread caused, who was at another: it had the thing when they began, or ended them. */
struct handoff {
    uint64_t thing, blocker; /* the serial of its lane, or 0: not known */
    int32_t blocker_rank;
    struct place waited, blocked;
    char of[LONGEST_OF];
    int64_t n, sum, max;
};

/* One such wait: who caused it, and who ended it, as places in handoffs, or -1. */
struct handover {
    int64_t begin, end;
    int32_t waits, waker;
    int64_t woken;           /* when it was let go of, or woken; 0: not known */
    bool got;                /* false: it was given up */
};

/* That somebody was called who did not wait: so nobody was woken. */
struct lost_call {
    uint64_t thing;
    struct place place;
    int64_t at;
};

#define N_LOST 8 /* the last ones */

/* Where multiprocessing's locks were taken last: the line of an instruction, of whose code an own reference is kept. */
#define N_LINES 32
struct line {
    struct _object *code;
    int32_t at, line;
    uint32_t file; /* of its file's name, what is as good as that */
};

struct order;

/* What a thread waits for; all 0 while it does not. */
struct wanted {
    int64_t since;           /* it waits */
    struct _object *wants;   /* the lock, */
    bool patient;            /* for as long as it takes, */
    uint64_t thing;          /* and what that is part of: alive while it waits, */
    char of[LONGEST_OF], method[LONGEST_OF];
    struct handoff *waits;   /* and what that counts as; NULL: nobody could say who caused it */
    struct handoff *waker;   /* who let go of what it waits for, or woke it, since it waits, and when; NULL: nobody yet */
    int64_t woken;
};

struct syncs {
    struct line lines[N_LINES];
    struct order *orders;    /* NULL: it never had two locks at a time */
    bool orders_are_full;
    struct _object *abort;   /* what is raised in its wait, to end that */
    uint32_t pid;            /* its process */
    struct wanted now;
    const struct getting *gets; /* the call in which it waits for a queue of processes, for as long as it takes; NULL: it is in none */
    uint32_t n_handovers;
    uint64_t more_handovers; /* that were shorter than these */
    struct handover handovers[N_HANDOVERS];
    uint32_t n_lost_calls;   /* so far */
    struct lost_call lost_calls[N_LOST];
    uint32_t n_handoffs;
    struct handoff handoffs[N_HANDOFFS];
    int n_held;
    struct held held[N_HELD];
    int n_permits;
    struct permit permits[N_PERMITS];
    uint32_t n_rows;
    struct sync_row rows[N_SYNCS];
};

struct lane {
    uint64_t magic;      /* MAGIC, where this is a lane at all */
    uint32_t generation; /* the run that it belongs to */
    uint64_t serial;     /* what the notebook knows it by */
    struct lane *next;   /* of those that are attached, or of those that are free */
    int32_t rank;
    int32_t depth;       /* > 0: within a wait */
    int32_t doing;       /* the kind of that wait */
    const void *caller;  /* what called it */
    bool event;          /* it waits for something to happen, not for a thing that somebody has */
    bool shared;         /* in a file that the notebook holds: it survives us */
    bool in_item;        /* waits are the body's, and listed */
    bool held;           /* this thread has the GIL; always true where there is none */
    bool wanting;        /* it has asked for the GIL */
    bool contended;      /* and had to wait for it */
    bool queue_unknown;  /* the run-queue clock could not be read: what it was off its core for is not known */
    bool unsynced;       /* a wait for the GIL lies behind the last reading of the CPU clock */
    int32_t holder;      /* who held the GIL when we began to want it */
    int64_t dropped;     /* when it last dropped the GIL, or was through with a forced switch */
    uint64_t takes;      /* how often anybody had taken the GIL by then */
    bool asked;          /* and whether it had been asked to drop it */
    int64_t mark;        /* everything before is accounted for */
    int64_t opened;      /* its own readings begin here */
    int64_t item;        /* the last reading was then: the current item began no earlier */
    int64_t cpu, queue;  /* the clocks when they were last read */
    int64_t on_core;     /* accounted as on a core since then */
    int schedstat;       /* descriptor of this thread's run-queue clock */
    uint64_t schedstat_file[2]; /* which file that is: a body may close descriptors that are not its own */
    int64_t spent[N_STATES];
    int64_t taken, taken_spent[N_STATES]; /* the last reading that was handed over */
    uint32_t n_events, lost, n_rows, row_room;
    double *rows;        /* readings: a time, then spent[] at that time, in seconds */
    void *thread_state;  /* this thread's PyThreadState */
    struct _object *filename;  /* the cell's, a str */
    bool continues;            /* the wait is the one before, in a further slice of that */
    int64_t joined;            /* how long that has been */
    int32_t sliced;            /* 1 + where the last of its slices is among the totals; 0: there was none */
    struct syncs *syncs;       /* our own memory; NULL: it has not come to a lock */
    uint32_t n_totals;   /* rows that tell things apart: */
    uint16_t used[N_TOTALS]; /* where they are; pages that nobody has written to are not looked at */
    struct file files[N_FILES];
    struct total totals[N_TOTALS];
    struct event events[N_EVENTS];
};

struct hook {
    const char *name;
    void *ours;
    void *real;
    bool interposed; /* another library's function is called in its place */
};
extern struct hook all_hooks[];
extern const int n_hooks;

/* objects.c */
struct range {
    uintptr_t begin, end;
};

struct slot {
    const void *relocation; /* that it belongs to */
    void **place;
    void *before; /* our hook: what stood there; NULL: not hooked yet */
    int hook;
};

struct object {
    const void *headers;  /* its program headers: where to look for it */
    uint64_t stamp;       /* what it was when its slots were read */
    struct range code;    /* where its own stubs are */
    struct range relro;   /* what the loader has made read-only */
    const void *symbols;
    const char *names;
    struct slot *slots;
    int n_slots, room;
    bool seen;
};
const char *objects_check(void);                                  /* before all else: why it cannot be done, or NULL */
void objects_each(void (*)(struct object *, bool), bool);         /* none is unloaded meanwhile; one thread at a time */
const void *library_of(const void *caller);                       /* whose code waits here: where it begins, or NULL: the interpreter's */
const char *library_path(const void *begin);                      /* NULL: no library begins there */

/* got.c */
int got_patch(bool on);      /* all loaded objects; returns how many slots are patched now */
int got_patched(void);

/* clock.c */
const char *clock_check(void);
int64_t clock_now(void);
int64_t clock_cpu(void);
int64_t clock_queue(int schedstat);
int clock_open_schedstat(uint64_t file[2]);
bool clock_is_schedstat(int schedstat, const uint64_t file[2]);
void clock_close_schedstat(int schedstat, const uint64_t file[2]);
void core_arm(void);
bool core_left(void);        /* this thread has left its core since core_arm() */
void core_disarm(void);

/* lane.c */
extern uint32_t generation;  /* 0: no run is on */
extern __thread struct lane *my_lane __attribute__((tls_model("initial-exec")));
static inline struct lane *lane_here(void)
{
    struct lane *lane = my_lane;
    return lane && lane->generation == __atomic_load_n(&generation, __ATOMIC_RELAXED) ? lane : NULL;
}

/* The clocks that take long, read between ``began`` and ``ended``: for how long the thread was on a core, and in the run queue, since they
 * were read last and that is not accounted for yet. */
struct reading {
    int64_t began, ended, on, queued;
};

void lane_open(struct lane *, int rank, int64_t born);   /* born: when the thread was created, or 0 */
void lane_birth(struct lane *);                          /* account for all until the opening */
int64_t lane_settle(struct lane *);                      /* account for all until now; returns now */
struct reading lane_settle_until(struct lane *);         /* the same in two steps: until the clocks were read, */
int64_t lane_skip(struct lane *, const struct reading *); /* and what was lost meanwhile */
void lane_gave(struct lane *);                           /* it has just dropped the GIL */
void lane_want(struct lane *);                           /* it is about to ask for the GIL */
void lane_took(struct lane *);                           /* it has just got the GIL */
int64_t lane_enter(struct lane *, enum kind, const void *caller); /* a call that may wait begins */
void lane_leave(struct lane *, enum kind, uint64_t object, int64_t begin) __attribute__((nonnull));
void lane_waits_on(struct lane *, int64_t begin);         /* what we did between two slices of a wait belongs to that */
void lane_heal(struct lane *);                           /* we are in Python, with the GIL, and in no call */
struct site;
void lane_close(struct lane *, int64_t now, int64_t cpu, const struct site *, int64_t *known_until); /* site: where it is; NULL: nobody knows */
void lane_waited(struct lane *, enum kind, uint64_t object, int64_t begin, int32_t holder); /* until now */

/* frames.c */
enum { SITE_KEEP = -1, SITE_PASS = -2 }; /* in place of a kind: what was hooked; the caller's frame tells */
struct site {
    int32_t line;     /* of the cell, or 0 */
    int32_t kind;     /* what the standard library's frames say, or SITE_KEEP */
    uint64_t object;  /* the object that was called there, or 0 */
    char of[LONGEST_OF]; /* the class whose method that was, or nothing */
    int32_t file, at; /* the innermost frame outside of these files: its file's place in lane->files, from 1, and its line; or 0 */
    int32_t begin, end; /* what it does there, in bytes of the line; an end of 0: it goes on in the next */
};
bool thread_is_stopped_at(const struct lane *, uint64_t address); /* a wait for it: the interpreter stops all threads */
int frame_library(struct _object *filename, int32_t kind);
void frame_own(struct _object *folder);                  /* files in it are ours */
int frame_loop(struct _object *filename, struct _object *name); /* a pool's: who waits in it is idle */
struct site frame_site(struct lane *);                   /* where the calling thread is, and what it called there */
struct site frame_site_elsewhere(struct lane *copy);     /* the same of another thread, by whoever has the GIL */

struct thing {
    uint64_t object;    /* the lock, or what it is part of */
    const void *method; /* whose code that is, or NULL */
    const void *inner;  /* the code of the library's that did this to the lock, or NULL */
    const char *of, *name; /* of what class's which method, where no code tells; then method is any number for it */
    struct _object *caller; /* the code that did this to it, or NULL, and at which of its instructions; no reference is taken */
    int32_t at;
    bool within;        /* a lock that the thing makes for itself, or takes again */
    bool is_held;       /* to have the lock is to have the thing */
    bool resumes;       /* it is a condition that was waited for: who has the lock again has the thing */
    bool restores;      /* and has it right now, from Python code */
    bool ours;          /* it is no business of the body's */
    bool between;       /* the method is multiprocessing's */
};
struct thing thing_here(struct lane *, struct _object *lock);
struct _object *notified_here(struct lane *);            /* the condition whose waiters the calling thread is about to wake, or NULL */
/* The code of the calling frame, where that is a function of multiprocessing's with so many arguments at least, and the last of these;
 * else NULL. No reference is taken. */
const void *frame_between(struct lane *, int n_arguments, struct _object **last);
bool frame_is_users(struct lane *, int depth);           /* that one, or one of its callers: neither multiprocessing's nor ours */
bool lane_is_alive(const struct lane *);
struct place frame_place(struct lane *);                 /* where any thread is, by whoever has the GIL; no reference is taken */

/* module.c */
struct lane *lanes_next(struct lane *);                  /* of those attached, with the GIL; NULL: the first */
void thing_names(const struct thing *, char *of, char *name); /* LONGEST_OF bytes each */

/* holds.c */
#define SLICE INT64_C(100000000) /* ns: a wait that takes longer looks around */
bool holds_on(void);         /* with the GIL; false: the methods of locks are not as we know them */
void holds_off(void);
void syncs_free(struct syncs *); /* with the GIL */
struct _object *handoffs_rows(const struct syncs *);
struct lane *holds_watched(void);                        /* the calling thread's, where it is a worker's, in an item; or NULL */
struct want {
    struct level *level;
    enum side side;
    int64_t before;
    struct wanted outer; /* in which this one began, as a signal came */
};
struct sync_row *holds_row(struct syncs *, const struct thing *);
struct held *holds_held(struct syncs *, struct _object *lock); /* NULL: it does not have it */
struct _object *holds_keep(struct _object *lock);        /* a reference, for what a thread has */
struct handoff *holds_handoff(struct syncs *, const struct handoff *like);
int64_t holds_blocked(const struct lane *);              /* for how long so far */
void holds_released(struct lane *, struct _object *lock, bool wholly);
struct want holds_want(struct lane *, const struct thing *, struct _object *wanted, struct lane *holder, struct sync_row *);
int64_t holds_wanted(struct lane *, struct want, bool got); /* returns for how long it has waited */
void holds_waited(struct sync_row *, int64_t wait);
void holds_wake(struct lane *, struct _object *wanted);
bool holds_look_around(struct lane *);                   /* of who waits for long; false: an exception is set */
bool holds_ended(struct syncs *);                        /* raise what ends its thread's wait; false: nothing does */
struct lane *holds_thread(uint64_t thread);              /* of a threading.Thread, while it runs; or NULL */
struct _object *holds_now(void);                         /* who has what, and waits for what */
void holds_look_with(struct _object *function, struct _object *told); /* called by who waits for long; NULL: nobody looks. told: a buffer, or NULL */
void holds_in_the_child(void);
/* Wait for a lock for as long as it takes: attempt waits for a slice, and returns whether that has it. */
struct _object *holds_by_slices(struct lane *, struct _object *lock, struct _object *(*attempt)(struct _object *), struct _object *(*release)(struct _object *));
void list_add(struct _object **list, struct _object *each); /* a new object, or NULL: then, as where it fails, there is no list any more */
struct _object *place_file(const struct place *);        /* borrowed; None where it is not known */
struct _object *holds_of(const struct syncs *);          /* what one has */
struct _object *holds_lost(const struct syncs *);        /* whom it called that did not wait */
bool holds_abort(uint64_t serial, struct _object *error);
struct _object *syncs_rows(const struct syncs *);

/* handovers.c */
void handovers_note(struct syncs *, int64_t begin, int64_t end, const struct handoff *waits, const struct handoff *waker, bool got);
struct _object *handovers_rows(const struct syncs *);    /* and how many more there were */

/* semlocks.c */
void semlocks_on(void);      /* with the GIL */
void semlocks_off(void);
uint64_t semlocks_key(struct _object *lock);             /* the same in all processes that have it, and no address; 0: it is none of these locks */
uint32_t semlocks_holder(struct _object *lock);          /* the process that has it; 0: nobody knows of one */
bool semlocks_free(struct _object *lock, uint32_t pid);  /* release what a process has that is no more; false: it does not have it */
bool semlocks_is_patient(struct _object *const *arguments, long n, struct _object *keywords); /* they say to wait for as long as it takes */
bool semlocks_may_have(struct _object *lock);            /* nobody knows that this process has it no more, or that others let go of it for it */

/* exchanges.c */
struct getting { /* a call of a queue's get() that waits for as long as it takes */
    struct _object *semaphore; /* of the queue */
    struct thing queue;
};
struct _object *exchange_new(struct _object *original, int role); /* for a class, in the place of one of its attributes */

/* orders.c */
void orders_note(struct lane *);
struct _object *orders_rows(const struct syncs *);
void orders_free(struct syncs *);                        /* with the GIL */
void orders_end(bool ours);

/* simple.c */
struct _typeobject *simple_on(void);                     /* returns the type of queues, where they are as we know them */
void simple_off(void);

/* made.c */
struct made {
    uint64_t thing;        /* 0: free */
    struct _object *code;  /* that made it, and at which of its instructions */
    int32_t at;
};
struct _typeobject;
void made_on(struct _object *module, struct _typeobject *lock, struct _typeobject *rlock, struct _typeobject *queue);
void made_off(bool ours);
const struct made *made_of(uint64_t thing);

/* levels.c */
struct level *level_of(uint64_t thing, const char *of);
int64_t level_look(struct level *);
int64_t level_note(struct level *, int64_t at);
bool level_is_lent(const struct level *);
void levels_simple(struct _object *(*size)(struct _object *, struct _object *)); /* of a queue in C */
void level_waits(struct level *, enum side, int more);
struct _object *level_tuple(const struct level *);
void levels_end(void);

/* files.c */
int32_t file_in(struct lane *, struct _object *name);    /* the place of a file's name, from 1; 0: there is no room */

/* gil.c */
extern void *gil_mutex, *gil_cond, *gil_switch_mutex, *gil_switch_cond; /* NULL: there is none */
extern int32_t gil_holder;   /* a rank, or NOBODY; written by who has the GIL, read by who wants it */
extern uint64_t gil_takes;   /* by any thread */
extern uint64_t gil_asked;   /* how many of these there were when a thread last lost patience, and asked for it; plus 1 */
static inline int32_t gil_held_by(void)
{
    return __atomic_load_n(&gil_holder, __ATOMIC_RELAXED);
}
static inline void gil_is_held_by(int32_t rank)
{
    __atomic_store_n(&gil_holder, rank, __ATOMIC_RELAXED);
}
static inline uint64_t gil_taken(void)
{
    return __atomic_load_n(&gil_takes, __ATOMIC_RELAXED);
}
bool gil_find(void);         /* in Python, with all objects patched; false: none was seen */
extern __thread int gil_calibrating __attribute__((tls_model("initial-exec")));
void gil_saw(int call, void *address);
enum { SAW_LOCK, SAW_SIGNAL };

/* hooks.c */
const char *hooks_resolve(void);
bool hooks_on(void);         /* a new generation begins; false: one is on already */
void hooks_off(void);
bool hooks_lent(void);       /* to a child of vfork(), which has our memory until it is another program, or could not become one */
bool hooks_resume(void);     /* in a fork, on again without a look at what is loaded; false: they were not on */
void hooks_before_fork(void);
void hooks_after_fork(void); /* in the parent */
void hooks_in_the_child(void);

#endif
