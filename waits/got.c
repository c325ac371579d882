/* Finds the slots through which calls leave an object, and points them at our hooks.
 *
 * An ELF object calls functions of other objects through its global offset table. We
 * walk the relocations of every loaded object, and remember the slots of the functions
 * that we hook. Patching writes our address there; taking it back writes what stood
 * there. The C library itself, the loader and this extension are left alone.
 */
#define _GNU_SOURCE
#include "waits.h"

#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
#define CALL_SLOT(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#else
#define CALL_SLOT(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#endif

struct slot {
    void **place;
    void *before;
    int hook;
    bool read_only; /* the loader protected it after relocation (RELRO) */
    bool patched;
};

static struct slot *slots;
static int n_slots, slot_room, n_patched;
static const void **objects; /* the dynamic sections of those that were scanned */
static int n_objects, object_room;
static unsigned long long adds, subs;
static bool failed;

static bool grow(void *array, int *room, size_t size)
{
    int wanted = *room ? 2 * *room : 256;
    void *more = realloc(*(void **)array, (size_t)wanted * size);
    if (!more)
        return false;
    *(void **)array = more;
    *room = wanted;
    return true;
}

static bool is_new(const void *object)
{
    for (int i = 0; i < n_objects; i++)
        if (objects[i] == object)
            return false;
    if (n_objects == object_room && !grow(&objects, &object_room, sizeof *objects))
        return false;
    objects[n_objects++] = object;
    return true;
}

static void remember(void **place, int hook, bool read_only)
{
    if (n_slots == slot_room && !grow(&slots, &slot_room, sizeof *slots)) {
        failed = true;
        return;
    }
    slots[n_slots++] = (struct slot){place, NULL, hook, read_only, false};
}

static int hook_of(const char *name)
{
    /* nearly all names fall out at the first letter */
    if (!strchr("_acdefgnprsuw", name[0]))
        return -1;
    for (int i = 0; i < n_hooks; i++)
        if (all_hooks[i].real && !strcmp(all_hooks[i].name, name))
            return i;
    return -1;
}

static void scan(const ElfW(Rela) * from, size_t size, ElfW(Addr) base, const ElfW(Sym) * symbols, const char *names,
                 uintptr_t relro, uintptr_t relro_end)
{
    for (const ElfW(Rela) *each = from; each < from + size / sizeof *from; each++) {
        if (!CALL_SLOT(ELF64_R_TYPE(each->r_info)))
            continue;
        int hook = hook_of(names + symbols[ELF64_R_SYM(each->r_info)].st_name);
        if (hook < 0)
            continue;
        uintptr_t place = base + each->r_offset;
        remember((void **)place, hook, place >= relro && place < relro_end);
    }
}

static bool ours_or_the_systems(const struct dl_phdr_info *object)
{
    static const char *const left_alone[] = {"libc.so", "libpthread.so", "ld-linux", "linux-vdso", "libasan", "libubsan", "libtsan", "liblsan"};
    const char *name = strrchr(object->dlpi_name, '/');
    name = name ? name + 1 : object->dlpi_name;
    for (size_t i = 0; i < sizeof left_alone / sizeof *left_alone; i++)
        if (!strncmp(name, left_alone[i], strlen(left_alone[i])))
            return true;
    uintptr_t here = (uintptr_t)&got_patch;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && here - object->dlpi_addr - part->p_vaddr < part->p_memsz)
            return true;
    }
    return false;
}

static int visit(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size;
    (void)unused;
    adds = object->dlpi_adds;
    subs = object->dlpi_subs;
    if (ours_or_the_systems(object))
        return 0;
    const ElfW(Dyn) *dynamic = NULL;
    uintptr_t relro = 0, relro_end = 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_DYNAMIC)
            dynamic = (const void *)(object->dlpi_addr + part->p_vaddr);
        if (part->p_type == PT_GNU_RELRO) {
            relro = object->dlpi_addr + part->p_vaddr;
            relro_end = relro + part->p_memsz;
        }
    }
    if (!dynamic || !is_new(dynamic))
        return 0;
    const ElfW(Rela) *calls = NULL, *data = NULL;
    size_t calls_size = 0, data_size = 0;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        switch (dynamic->d_tag) {
        case DT_JMPREL: calls = (const void *)dynamic->d_un.d_ptr; break;
        case DT_PLTRELSZ: calls_size = dynamic->d_un.d_val; break;
        case DT_RELA: data = (const void *)dynamic->d_un.d_ptr; break;
        case DT_RELASZ: data_size = dynamic->d_un.d_val; break;
        case DT_SYMTAB: symbols = (const void *)dynamic->d_un.d_ptr; break;
        case DT_STRTAB: names = (const void *)dynamic->d_un.d_ptr; break;
        default: break;
        }
    }
    if (!symbols || !names)
        return 0;
    if (calls)
        scan(calls, calls_size, object->dlpi_addr, symbols, names, relro, relro_end);
    if (data)
        scan(data, data_size, object->dlpi_addr, symbols, names, relro, relro_end);
    return 0;
}

static int look_at_counts(struct dl_phdr_info *object, size_t size, void *counts)
{
    (void)size;
    ((unsigned long long *)counts)[0] = object->dlpi_adds;
    ((unsigned long long *)counts)[1] = object->dlpi_subs;
    return 1;
}

/* Find the slots of all objects, or of those that came since. Where objects went and
 * nothing is patched, begin anew: their slots are gone with them. */
const char *got_find(void)
{
    unsigned long long counts[2] = {0, 0};
    dl_iterate_phdr(look_at_counts, counts);
    if (n_slots && counts[0] == adds && counts[1] == subs)
        return NULL;
    if (counts[1] != subs && !n_patched)
        n_slots = n_objects = 0;
    failed = false;
    dl_iterate_phdr(visit, NULL);
    if (failed)
        return "out of memory";
    return n_slots ? NULL : "no loaded object calls what is to be hooked";
}

static int holds(struct dl_phdr_info *object, size_t size, void *place)
{
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (uintptr_t)place - object->dlpi_addr - part->p_vaddr < part->p_memsz)
            return 1;
    }
    return 0;
}

static bool protect(uintptr_t page, int how)
{
    return mprotect((void *)page, (size_t)getpagesize(), how) == 0;
}

int got_patch(bool on)
{
    uintptr_t size = (uintptr_t)getpagesize(), open = 0;
    unsigned long long counts[2] = {0, 0};
    dl_iterate_phdr(look_at_counts, counts);
    bool some_went = counts[1] != subs;
    for (int i = 0; i < n_slots; i++) {
        struct slot *slot = &slots[i];
        if (slot->patched == on)
            continue;
        if (some_went && !dl_iterate_phdr(holds, slot->place)) {
            n_patched -= slot->patched; /* its object was unloaded while the hooks were on */
            slot->patched = false;
            continue;
        }
        uintptr_t page = (uintptr_t)slot->place & ~(size - 1);
        if (slot->read_only && page != open) {
            if (open)
                protect(open, PROT_READ);
            open = protect(page, PROT_READ | PROT_WRITE) ? page : 0;
        }
        if (slot->read_only && !open)
            continue; /* the system refuses: this object's waits go unnamed */
        if (on)
            slot->before = *slot->place;
        __atomic_store_n(slot->place, on ? all_hooks[slot->hook].ours : slot->before, __ATOMIC_RELEASE);
        slot->patched = on;
        n_patched += on ? 1 : -1;
    }
    if (open)
        protect(open, PROT_READ);
    return n_patched;
}
