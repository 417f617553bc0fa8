# Clocks: nanoseconds that only grow, on the scale of `time.monotonic_ns()`, and nanoseconds since the epoch.

cdef extern from *:
    """
    #if defined(_WIN32)
    #include <windows.h>
    static inline long long armature_monotonic_ns(void)
    {
        static LARGE_INTEGER frequency;
        LARGE_INTEGER now;
        if (frequency.QuadPart == 0) QueryPerformanceFrequency(&frequency);
        QueryPerformanceCounter(&now);
        return (now.QuadPart / frequency.QuadPart) * 1000000000LL
            + (now.QuadPart % frequency.QuadPart) * 1000000000LL / frequency.QuadPart;
    }
    static inline long long armature_wall_ns(void)
    {
        FILETIME now;
        ULARGE_INTEGER ticks;
        GetSystemTimePreciseAsFileTime(&now);
        ticks.LowPart = now.dwLowDateTime;
        ticks.HighPart = now.dwHighDateTime;
        /* 100 ns since 1601. */
        return ((long long)ticks.QuadPart - 116444736000000000LL) * 100;
    }
    #else
    #include <time.h>
    static inline long long armature_ns(clockid_t clock)
    {
        struct timespec now;
        clock_gettime(clock, &now);
        return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    static inline long long armature_monotonic_ns(void) { return armature_ns(CLOCK_MONOTONIC); }
    static inline long long armature_wall_ns(void) { return armature_ns(CLOCK_REALTIME); }
    #endif
    """
    long long monotonic_ns "armature_monotonic_ns"() noexcept nogil
    long long wall_ns "armature_wall_ns"() noexcept nogil
