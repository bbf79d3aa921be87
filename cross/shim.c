/* What compiled code asks for by name, and what need not be brought in to answer. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>

/* In place of libunwind. Panics abort and the binaries carry no tables to unwind by, so a backtrace is empty anyway; but
 * std's panic message asks for one where RUST_BACKTRACE is set, and would bring the whole library in. */
int _Unwind_Backtrace(void *trace, void *argument) {
    (void)trace, (void)argument;
    return 5; /* _URC_END_OF_STACK */
}

uintptr_t _Unwind_GetIP(void *context) {
    (void)context;
    return 0;
}

uintptr_t _Unwind_GetCFA(void *context) {
    (void)context;
    return 0;
}

uintptr_t _Unwind_GetIPInfo(void *context, int *before) {
    (void)context;
    *before = 0;
    return 0;
}

/* ARM's, where GetIP is a macro for this. */
int _Unwind_VRS_Get(void *context, int kind, uint32_t number, int type, void *value) {
    (void)context, (void)kind, (void)number, (void)type;
    *(uint32_t *)value = 0;
    return 0;
}

void *_Unwind_FindEnclosingFunction(void *address) { return address; }

/* In place of libatomic, of which OpenSSL asks this on processors without 64-bit atomics. */
bool lock_free(size_t size, const volatile void *object) __asm__("__atomic_is_lock_free");
bool lock_free(size_t size, const volatile void *object) {
    (void)object;
    return size <= sizeof(void *);
}

/* In place of musl's, which brings printf in for the path under /proc by which it names other threads. Rust's threads name
 * themselves only. */
int pthread_setname_np(pthread_t thread, const char *name) {
    if (thread != pthread_self()) return ENOSYS;
    if (strnlen(name, 16) > 15) return ERANGE;
    return prctl(PR_SET_NAME, (unsigned long)name, 0ul, 0ul, 0ul) ? errno : 0;
}
