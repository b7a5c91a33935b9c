/*
 * Preloaded into linux.uml, which keeps 2,696 bytes of a process's floating-point state and hands just those back to
 * ptrace. A host whose processors have more state (AMX) accepts the whole only, so that no guest would boot there.
 * The states that the kernel of the guest does not know stay as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static long (*libc_ptrace)(enum __ptrace_request, long, long, void *);
static char state[1 << 16];

__attribute__((constructor)) static void find_libc_ptrace(void)
{
    *(void **)&libc_ptrace = dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, long);
    long address = va_arg(arguments, long);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE) {
        struct iovec *known = data, whole = {state, sizeof state};
        libc_ptrace(PTRACE_GETREGSET, pid, address, &whole);
        memcpy(state, known->iov_base, known->iov_len);
        return libc_ptrace(request, pid, address, &whole);
    }
    return libc_ptrace(request, pid, address, data);
}
