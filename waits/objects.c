/* What is loaded, and the slots through which it calls what we hook.
 *
 * An ELF object calls functions of other objects through its global offset table; its
 * relocations tell which slot is for which function. They are read once and kept, for
 * there are many. But an address says nothing about who is there: a library may be
 * unloaded, built anew and loaded again in the same place. So an object is what its
 * memory says now. The loader counts what it loads and unloads; while these counts
 * stand still, all is as it was. Else each object that we know must still have the
 * same layout, tables and build id, and each of its slots the same relocation for the
 * same name, or it is read anew.
 *
 * All of it happens inside of dl_iterate_phdr(), which keeps the loader from unloading
 * what we look at. It does show objects that are still being relocated. Those are not
 * touched: the loader writes their slots, and protects them when it is through.
 *
 * The C library itself, the loader and this extension are left alone.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#define CALL_SLOT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#else
#define CALL_SLOT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#endif

#define SOME 4096 /* bytes of names */

static struct object *objects;
static int n_objects, object_room;

static bool all_known; /* the table holds all that was loaded when the loader's counts were these: */
static unsigned long long loads, unloads;

static bool grow(void *array, int *room, size_t size)
{
    int wanted = *room ? 2 * *room : 8;
    void *more = realloc(*(void **)array, (size_t)wanted * size);
    if (!more)
        return false;
    *(void **)array = more;
    *room = wanted;
    return true;
}

/* A struct dl_find_object, which <dlfcn.h> has since glibc 2.35. */
struct found {
    uint64_t flags;
    const void *begin, *end;
    const struct link_map *map;
    uint64_t rest[28];
};

static int (*find_object)(void *, void *);
static const void *interpreter; /* where the code of Python begins */

static const void *begin_of(const void *address, struct found *found)
{
    return find_object((void *)address, found) ? NULL : found->begin;
}

const char *objects_check(void)
{
    find_object = (__typeof__(find_object))dlsym(RTLD_DEFAULT, "_dl_find_object");
    struct found found;
    if (find_object)
        interpreter = begin_of(dlsym(RTLD_DEFAULT, "PyThreadState_Get"), &found);
    return find_object ? NULL : "the C library does not tell which objects are loaded completely (glibc 2.35 or newer does)";
}

/* Is [at, at + size) within a segment with these permissions? */
static bool within(const struct dl_phdr_info *info, uintptr_t at, size_t size, ElfW(Word) permissions)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t inside = at - info->dlpi_addr - part->p_vaddr;
        if (part->p_type == PT_LOAD && (part->p_flags & permissions) == permissions && inside < part->p_memsz && size <= part->p_memsz - inside)
            return true;
    }
    return false;
}

static bool is_among(const char *path, const char *const *names, size_t count)
{
    const char *name = strrchr(path, '/');
    name = name ? name + 1 : path;
    for (size_t i = 0; i < count; i++)
        if (!strncmp(name, names[i], strlen(names[i])))
            return true;
    return false;
}
#define IS_AMONG(path, names) is_among(path, names, sizeof(names) / sizeof *(names))

static bool is_left_alone(const struct dl_phdr_info *info)
{
    static const char *const left_alone[] = {"libc.so", "libpthread.so", "ld-linux", "linux-vdso", "libasan", "libubsan", "libtsan", "liblsan"};
    return IS_AMONG(info->dlpi_name, left_alone) || within(info, (uintptr_t)&objects_each, 1, PF_X);
}

/* The loader enters an object there when it has relocated and protected it, and takes it out before it unloads it. */
static bool is_loaded(const ElfW(Dyn) * dynamic)
{
    struct found found;
    return begin_of(dynamic, &found);
}

static const ElfW(Dyn) * dynamic_of(const struct dl_phdr_info *info)
{
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return NULL;
}

static uint64_t mixed(uint64_t hash, const void *from, size_t size)
{
    for (uint64_t word = 0; size; size -= size < sizeof word ? size : sizeof word, from = (const char *)from + sizeof word, word = 0) {
        memcpy(&word, from, size < sizeof word ? size : sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash;
}

/* The loader writes addresses into the dynamic section, unless that is read-only. */
static const void *table_at(const struct dl_phdr_info *info, ElfW(Addr) address)
{
    return (const void *)(within(info, address, 1, 0) ? address : info->dlpi_addr + address);
}

/* Where it is, how it is laid out, where its tables are and how large, its build id, and, as that may be missing, some of its names. */
static uint64_t stamp_of(const struct dl_phdr_info *info, const ElfW(Dyn) * dynamic)
{
    uint64_t stamp = mixed(1, &info->dlpi_addr, sizeof info->dlpi_addr);
    stamp = mixed(stamp, info->dlpi_phdr, info->dlpi_phnum * sizeof *info->dlpi_phdr);
    const void *names = NULL;
    size_t size = 0;
    for (const ElfW(Dyn) *each = dynamic; each->d_tag != DT_NULL; each++) {
        stamp = mixed(stamp, each, sizeof *each);
        if (each->d_tag == DT_STRTAB)
            names = table_at(info, each->d_un.d_ptr);
        if (each->d_tag == DT_STRSZ)
            size = each->d_un.d_val;
    }
    if (names)
        stamp = mixed(stamp, names, size < SOME ? size : SOME);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t notes = info->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_NOTE && within(info, notes, part->p_filesz, PF_R))
            stamp = mixed(stamp, (const void *)notes, part->p_filesz);
    }
    return stamp;
}

static int hook_of(const char *name)
{
    /* nearly all names fall out at the first letter */
    if (!name[0] || !strchr("_acdefgnprsuw", name[0]))
        return -1;
    for (int i = 0; i < n_hooks; i++)
        if (all_hooks[i].real && !strcmp(all_hooks[i].name, name))
            return i;
    return -1;
}

/* Which of our hooks this relocation is for, or -1. What the object has a function of
 * its own for is not ours, though its slot may look like one that is not bound yet. */
static int hook_at(const struct object *object, const ElfW(Rela) * relocation)
{
    if (!CALL_SLOT(ELF64_R_TYPE(relocation->r_info)))
        return -1;
    const ElfW(Sym) *symbol = (const ElfW(Sym) *)object->symbols + ELF64_R_SYM(relocation->r_info);
    return symbol->st_shndx == SHN_UNDEF ? hook_of(object->names + symbol->st_name) : -1;
}

static void scan(struct object *object, const struct dl_phdr_info *info, const ElfW(Rela) * from, size_t size)
{
    for (const ElfW(Rela) *each = from; from && each < from + size / sizeof *from; each++) {
        int hook = hook_at(object, each);
        uintptr_t place = info->dlpi_addr + each->r_offset;
        if (hook < 0 || place % sizeof(void *) || !within(info, place, sizeof(void *), PF_W))
            continue;
        if (object->n_slots == object->room && !grow(&object->slots, &object->room, sizeof *object->slots))
            return; /* out of memory: what is not hooked goes unnamed */
        object->slots[object->n_slots++] = (struct slot){each, (void **)place, NULL, hook};
    }
}

static void read_segments(struct object *object, const struct dl_phdr_info *info)
{
    uintptr_t page = (uintptr_t)getpagesize();
    object->code = (struct range){UINTPTR_MAX, 0};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + part->p_vaddr, end = begin + part->p_memsz;
        if (part->p_type == PT_LOAD && part->p_flags & PF_X) {
            object->code.begin = begin < object->code.begin ? begin : object->code.begin;
            object->code.end = end > object->code.end ? end : object->code.end;
        }
        if (part->p_type == PT_GNU_RELRO) /* as the loader rounds it */
            object->relro = (struct range){begin & ~(page - 1), end & ~(page - 1)};
    }
}

static void read_tables(struct object *object, const struct dl_phdr_info *info, const ElfW(Dyn) * dynamic)
{
    const ElfW(Rela) *calls = NULL, *data = NULL;
    size_t calls_size = 0, data_size = 0;
    for (const ElfW(Dyn) *each = dynamic; each->d_tag != DT_NULL; each++) {
        switch (each->d_tag) {
        case DT_JMPREL: calls = table_at(info, each->d_un.d_ptr); break;
        case DT_PLTRELSZ: calls_size = each->d_un.d_val; break;
        case DT_RELA: data = table_at(info, each->d_un.d_ptr); break;
        case DT_RELASZ: data_size = each->d_un.d_val; break;
        case DT_SYMTAB: object->symbols = table_at(info, each->d_un.d_ptr); break;
        case DT_STRTAB: object->names = table_at(info, each->d_un.d_ptr); break;
        default: break;
        }
    }
    if (!object->symbols || !object->names)
        return;
    scan(object, info, calls, calls_size);
    scan(object, info, data, data_size);
}

/* Is what is loaded there still what we read? */
static bool is_unchanged(const struct object *object, const struct dl_phdr_info *info, uint64_t stamp)
{
    if (object->stamp != stamp)
        return false;
    for (int i = 0; i < object->n_slots; i++) {
        const struct slot *slot = &object->slots[i];
        const ElfW(Rela) *relocation = slot->relocation; /* the tables are where they were, as the stamp says */
        if (hook_at(object, relocation) != slot->hook || info->dlpi_addr + relocation->r_offset != (uintptr_t)slot->place)
            return false;
    }
    return true;
}

/* Our entry for it; most come in the order in which they came the last time. */
static struct object *entry_for(const struct dl_phdr_info *info)
{
    static int next;
    for (int tries = 0; tries < n_objects; tries++) {
        next = next + 1 < n_objects ? next + 1 : 0;
        if (objects[next].headers == info->dlpi_phdr)
            return &objects[next];
    }
    if (n_objects == object_room && !grow(&objects, &object_room, sizeof *objects))
        return NULL;
    next = n_objects++;
    objects[next] = (struct object){.headers = info->dlpi_phdr};
    return &objects[next];
}

static void forget(struct object *object)
{
    free(object->slots);
    *object = (struct object){.headers = object->headers};
}

/* NULL: it is not loaded completely, or memory is out. */
static struct object *object_of(const struct dl_phdr_info *info)
{
    const ElfW(Dyn) *dynamic = dynamic_of(info);
    bool left_alone = !dynamic || is_left_alone(info);
    if (!left_alone && !is_loaded(dynamic))
        return NULL;
    struct object *object = entry_for(info);
    if (!object)
        return NULL;
    object->seen = true;
    uint64_t stamp = left_alone ? 0 : stamp_of(info, dynamic);
    if (is_unchanged(object, info, stamp))
        return object;
    forget(object);
    object->seen = true;
    object->stamp = stamp;
    if (!left_alone) {
        read_segments(object, info);
        read_tables(object, info, dynamic);
    }
    return object;
}

struct look {
    void (*each)(struct object *, bool);
    bool with, begun;
};

/* The first that we are shown tells the counts, which hold for the whole tour. (The number of unloads may be
 * wrong where there are several namespaces, but while both stand still, nothing came and nothing went.) */
static bool nothing_changed(const struct dl_phdr_info *info, size_t size)
{
    bool counted = size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs;
    if (counted && all_known && info->dlpi_adds == loads && info->dlpi_subs == unloads)
        return true;
    all_known = counted;
    loads = info->dlpi_adds;
    unloads = info->dlpi_subs;
    return false;
}

static int visit(struct dl_phdr_info *info, size_t size, void *data)
{
    struct look *look = data;
    if (!look->begun) {
        look->begun = true;
        if (nothing_changed(info, size)) {
            for (int i = 0; i < n_objects; i++) {
                objects[i].seen = true;
                look->each(&objects[i], look->with);
            }
            return 1;
        }
    }
    struct object *object = object_of(info);
    if (object)
        look->each(object, look->with);
    else
        all_known = false;
    return 0;
}

void objects_each(void (*each)(struct object *, bool), bool with)
{
    struct look look = {.each = each, .with = with};
    dl_iterate_phdr(visit, &look);
    int kept = 0;
    for (int i = 0; i < n_objects; i++) { /* what was unloaded took its slots along */
        if (objects[i].seen) {
            objects[i].seen = false;
            objects[kept++] = objects[i];
        } else {
            free(objects[i].slots);
        }
    }
    n_objects = kept;
}

/* Code that others call to wait, and that calls on behalf of others. */
static bool is_anybodys(const struct found *found)
{
    static const char *const names[] = {"libc.so", "libpthread.so", "ld-linux", "libstdc++", "libc++", "libgcc_s", "libffi", "_ctypes.",
                                        "_waits.", "libasan", "libubsan", "libtsan", "liblsan", "linux-vdso"};
    return IS_AMONG(found->map->l_name, names);
}

/* Where a library of C++ waits, the call comes from the language's own library: the nearest address of any other on the stack
 * tells who that was. The words that are looked at are of frames that stand still; an address that a frame has not overwritten
 * may be among them. */
__attribute__((no_sanitize("address"))) const void *library_of(const void *caller)
{
    struct found found;
    const void *begin = begin_of(caller, &found);
    if (!begin || begin == interpreter || !is_anybodys(&found))
        return begin == interpreter ? NULL : begin;
    const void *const *words = __builtin_frame_address(0);
    for (size_t i = 0; i < NEAR / sizeof *words; i++) {
        begin = begin_of(words[i], &found);
        if (begin && !is_anybodys(&found))
            return begin == interpreter ? NULL : begin;
    }
    return NULL;
}

const char *library_path(const void *begin)
{
    struct found found;
    return begin && begin_of(begin, &found) == begin ? found.map->l_name : NULL;
}
