/* Messages between a gate and its own parser (parcel.h). Called by gate/parser.c and job-parser.
 * Must never allocate, nor take a descriptor that comes along. */
#include "ipc/parcel.h"

#include "base/hash.h"
#include "base/writer.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define MARK 0x6b72616d2d786574u /* anything: the same on both sides */

uint64_t cs_parcel_mark(uint64_t id, struct cs_slice text)
{
    return cs_hash((struct cs_hash_key){id, MARK}, text);
}

static bool send_two(int fd, struct cs_slice head, struct cs_slice body)
{
    union { /* sendmsg writes nothing there */
        const uint8_t *in;
        void *out;
    } h = {head.p}, b = {body.p};
    struct iovec pieces[2] = {{h.out, head.n}, {b.out, body.n}};
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = 2};
    ssize_t n = 0;
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n >= 0 && (size_t)n == head.n + body.n;
}

bool cs_parcel_send_text(int fd, uint64_t id, struct cs_slice text)
{
    uint8_t head[CS_PARCEL_TEXT_HEAD];
    struct cs_writer w = cs_writer(head, sizeof head);
    cs_writer_u64le(&w, id);
    return send_two(fd, cs_writer_done(&w), text);
}

bool cs_parcel_send_record(int fd, uint64_t id, uint64_t mark, struct cs_slice record)
{
    uint8_t head[CS_PARCEL_RECORD_HEAD];
    struct cs_writer w = cs_writer(head, sizeof head);
    cs_writer_u64le(&w, id);
    cs_writer_u64le(&w, mark);
    return send_two(fd, cs_writer_done(&w), record);
}

enum cs_parcel cs_parcel_receive(int fd, void *room, size_t size, struct cs_slice *ret)
{
    struct iovec piece = {room, size};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    ssize_t n = 0;
    do {
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        return CS_PARCEL_NONE;
    }
    /* MSG_CTRUNC: there were descriptors, for which there is no room: the kernel has closed them.
     */
    if (n <= 0 || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        return CS_PARCEL_BROKEN;
    }
    *ret = cs_slice(room, (size_t)n);
    return CS_PARCEL_GOT;
}
