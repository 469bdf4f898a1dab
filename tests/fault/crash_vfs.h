/* An SQLite file layer over the disk in memory of crash_disk.h. */
#ifndef CS_TEST_CRASH_VFS_H
#define CS_TEST_CRASH_VFS_H

/* Makes it the one that a connection gets that names none. */
void crash_vfs_use(void);

#endif
