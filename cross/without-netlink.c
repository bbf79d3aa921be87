/* without-netlink PROGRAM ARGUMENT…: runs a program that is refused netlink sockets.
 *
 * qemu-user 7.2 hands a big-endian program netlink's answers in a broken order of bytes, and musl's getifaddrs(3) then goes
 * round for ever. A program that gets no netlink socket has no list of interfaces' addresses, and that is all. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof filter[0], filter };
    if (count < 2) {
        fprintf(stderr, "without-netlink: which program?\n");
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        fprintf(stderr, "without-netlink: the kernel takes no filter: %s\n", strerror(errno));
        return 1;
    }
    execvp(words[1], words + 1);
    fprintf(stderr, "without-netlink: %s: %s\n", words[1], strerror(errno));
    return 127;
}
