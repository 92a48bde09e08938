/* A time of day of its own for the programs of one host: the machine's, and so many seconds ahead as a file says at the very moment.
 *
 * Preloaded into each of them. What is measured since the machine's start is left as it is, as when somebody sets a clock. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long *seconds_ahead;

__attribute__((constructor)) static void find_the_file(void)
{
    const char *path = getenv("TRUNKLINE_LAB_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        seconds_ahead = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int answer = (int)syscall(SYS_clock_gettime, clock, now);
    if (answer == 0 && seconds_ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *seconds_ahead;
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}
