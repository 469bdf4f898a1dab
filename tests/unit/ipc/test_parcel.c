/* Messages between a gate and its own parser: whole, one at a time, and none but these. */
#include "ipc/parcel.h"
#include "runtime/sock.h"
#include "tap.h"

#include <sys/socket.h>
#include <unistd.h>

static void new_pair(int fd[static 2])
{
    CS_CHECK(cs_socketpair(fd) == CS_OK);
}

static void close_pair(const int fd[static 2])
{
    (void)close(fd[0]);
    (void)close(fd[1]);
}

CS_TEST(parcel_arrives_whole_and_one_after_another)
{
    int fd[2];
    uint8_t room[64];
    struct cs_slice got;
    new_pair(fd);
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_NONE);
    CS_CHECK(cs_parcel_send_text(fd[0], 0x0102030405060708, CS_SLICE_LIT("SELECT 1")));
    CS_CHECK(cs_parcel_send_text(fd[0], 2, CS_SLICE_NULL));
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_GOT);
    CS_CHECK(cs_slice_eq(got, CS_SLICE_LIT("\x08\x07\x06\x05\x04\x03\x02\x01SELECT 1")));
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_GOT);
    CS_EQ_U64(got.n, CS_PARCEL_TEXT_HEAD);
    CS_CHECK(cs_parcel_send_record(fd[1], 1, 2, CS_SLICE_LIT("x")));
    CS_CHECK(cs_parcel_receive(fd[0], room, sizeof room, &got) == CS_PARCEL_GOT);
    CS_EQ_U64(got.n, CS_PARCEL_RECORD_HEAD + 1);
    close_pair(fd);
}

CS_TEST(parcel_larger_than_the_room_is_none)
{
    int fd[2];
    uint8_t room[16];
    struct cs_slice got;
    new_pair(fd);
    CS_CHECK(cs_parcel_send_text(fd[0], 1, CS_SLICE_LIT("12345678")));
    CS_CHECK(cs_parcel_send_text(fd[0], 1, CS_SLICE_LIT("123456789")));
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_GOT);
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_BROKEN);
    close_pair(fd);
}

CS_TEST(parcel_with_a_descriptor_is_none)
{
    int fd[2];
    uint8_t room[16];
    struct cs_slice got;
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec piece = {room, 8};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    new_pair(fd);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd[0], sizeof(int));
    CS_CHECK(sendmsg(fd[0], &m, MSG_NOSIGNAL) == 8);
    CS_CHECK(cs_parcel_receive(fd[1], room, sizeof room, &got) == CS_PARCEL_BROKEN);
    close_pair(fd);
}

CS_TEST(parcel_to_and_from_nobody_is_none)
{
    int fd[2];
    uint8_t room[16];
    struct cs_slice got;
    new_pair(fd);
    (void)close(fd[1]);
    CS_CHECK(!cs_parcel_send_text(fd[0], 1, CS_SLICE_LIT("x")));
    CS_CHECK(cs_parcel_receive(fd[0], room, sizeof room, &got) == CS_PARCEL_BROKEN);
    (void)close(fd[0]);
}

CS_TEST(parcel_mark_is_of_number_and_text)
{
    uint64_t mark = cs_parcel_mark(1, CS_SLICE_LIT("SELECT 1"));
    CS_EQ_U64(mark, cs_parcel_mark(1, CS_SLICE_LIT("SELECT 1")));
    CS_CHECK(mark != cs_parcel_mark(2, CS_SLICE_LIT("SELECT 1")));
    CS_CHECK(mark != cs_parcel_mark(1, CS_SLICE_LIT("SELECT 2")));
}
