/* What Python cannot tell about itself: how often it allocates, and when callgrind is to count.
 *
 * Loaded by ctypes.PyDLL, so that the interpreter's own symbols are used and the GIL is held.
 */
#include <stddef.h>

#if defined(__has_include)
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAVE_CALLGRIND 1
#endif
#endif

/* PyMemAllocatorEx and its domains (Include/cpython/pymem.h): part of CPython's API since 3.5, spelled out here so that
 * no development headers are needed. */
typedef struct {
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
} Allocator;
enum { RAW, MEM, OBJ, DOMAINS };

extern void PyMem_GetAllocator(int domain, Allocator *allocator);
extern void PyMem_SetAllocator(int domain, Allocator *allocator);

static Allocator original[DOMAINS];
static unsigned long long allocations, bytes;

static void *count_malloc(void *context, size_t size) {
    Allocator *next = context;
    allocations++;
    bytes += size;
    return next->malloc(next->context, size);
}

static void *count_calloc(void *context, size_t count, size_t size) {
    Allocator *next = context;
    allocations++;
    bytes += count * size;
    return next->calloc(next->context, count, size);
}

static void *count_realloc(void *context, void *block, size_t size) {
    Allocator *next = context;
    allocations++;
    bytes += size;
    return next->realloc(next->context, block, size);
}

static void pass_free(void *context, void *block) {
    Allocator *next = context;
    next->free(next->context, block);
}

/* Counts in the two domains that need the GIL; RAW is used by threads that do not hold it. */
void probe_count(void) {
    allocations = bytes = 0;
    for (int domain = MEM; domain < DOMAINS; domain++) {
        PyMem_GetAllocator(domain, &original[domain]);
        Allocator counting = {&original[domain], count_malloc, count_calloc, count_realloc, pass_free};
        PyMem_SetAllocator(domain, &counting);
    }
}

void probe_stop(unsigned long long *result) {
    for (int domain = MEM; domain < DOMAINS; domain++) PyMem_SetAllocator(domain, &original[domain]);
    result[0] = allocations;
    result[1] = bytes;
}

int probe_has_callgrind(void) {
#ifdef HAVE_CALLGRIND
    return 1;
#else
    return 0;
#endif
}

void probe_callgrind(int on) {
#ifdef HAVE_CALLGRIND
    if (on) {
        CALLGRIND_START_INSTRUMENTATION;
        CALLGRIND_ZERO_STATS;
    } else {
        CALLGRIND_STOP_INSTRUMENTATION;
    }
#else
    (void)on;
#endif
}

/* Write down what was counted, under a name that the profile repeats, and begin anew. */
void probe_callgrind_dump(const char *name) {
#ifdef HAVE_CALLGRIND
    CALLGRIND_DUMP_STATS_AT(name);
#else
    (void)name;
#endif
}
