# Walking bytes: scans that several twins share. Each is given an end pointer and never reads past it.

cdef extern from *:
    """
    #include <string.h>
    #include <stdint.h>
    #ifndef ARMATURE_HOT_08_SIMD
    #define ARMATURE_HOT_08_SIMD 1
    #endif
    #if !ARMATURE_HOT_08_SIMD
    #elif defined(__SSE2__) || defined(_M_X64)
    #include <emmintrin.h>
    #define ARMATURE_SSE2 1
    #elif defined(__aarch64__) || defined(_M_ARM64)
    #include <arm_neon.h>
    #define ARMATURE_NEON 1
    #endif

    #if defined(_MSC_VER)
    #include <intrin.h>
    static __inline int armature_ctz(uint32_t x) { unsigned long i; _BitScanForward(&i, x); return (int)i; }
    static __inline int armature_ctzll(uint64_t x) { unsigned long i; _BitScanForward64(&i, x); return (int)i; }
    #else
    static inline int armature_ctz(uint32_t x) { return __builtin_ctz(x); }
    static inline int armature_ctzll(uint64_t x) { return __builtin_ctzll(x); }
    #endif

    /* The first byte that no field value may hold: a control other than HTAB, or DEL; `end` if there is none. */
    static inline const char *armature_find_control(const char *p, const char *end)
    {
    #if defined(ARMATURE_SSE2)
        const __m128i low = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8(0x09), del = _mm_set1_epi8(0x7f);
        while (end - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)p);
            __m128i control = _mm_andnot_si128(_mm_cmpeq_epi8(v, tab), _mm_cmpeq_epi8(_mm_min_epu8(v, low), v));
            uint32_t mask = (uint32_t)_mm_movemask_epi8(_mm_or_si128(control, _mm_cmpeq_epi8(v, del)));
            if (mask) return p + armature_ctz(mask);
            p += 16;
        }
    #elif defined(ARMATURE_NEON)
        const uint8x16_t low = vdupq_n_u8(0x1f), tab = vdupq_n_u8(0x09), del = vdupq_n_u8(0x7f);
        while (end - p >= 16) {
            uint8x16_t v = vld1q_u8((const uint8_t *)p);
            uint8x16_t hit = vorrq_u8(vbicq_u8(vcleq_u8(v, low), vceqq_u8(v, tab)), vceqq_u8(v, del));
            uint64_t mask = vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(hit), 4)), 0);
            if (mask) return p + (armature_ctzll(mask) >> 2);
            p += 16;
        }
    #endif
        while (p < end) {
            unsigned char c = (unsigned char)*p;
            if ((c < 0x20 && c != 0x09) || c == 0x7f) break;
            p++;
        }
        return p;
    }

    /* The first byte that is not in a class of armature/_spec/abnf.py; `end` if there is none. */
    static inline const char *armature_find_not_in(const char *p, const char *end, const unsigned char *table)
    {
        while (p < end && table[(unsigned char)*p]) p++;
        return p;
    }

    /* Whether `n` bytes are the lower-case token `lower`, in any case. The bytes are known to be token bytes. */
    static inline int armature_same_token(const char *p, const char *lower, size_t n)
    {
        while (n >= 8) {
            uint64_t a, b;
            memcpy(&a, p, 8);
            memcpy(&b, lower, 8);
            if ((a | UINT64_C(0x2020202020202020)) != b) return 0;
            p += 8; lower += 8; n -= 8;
        }
        while (n--) if ((*p++ | 0x20) != *lower++) return 0;
        return 1;
    }

    /* Write a number in decimal; returns how many digits. */
    static inline int armature_decimal(char *out, uint64_t value)
    {
        char digits[20];
        int n = 0, i;
        do { digits[n++] = (char)('0' + value % 10); value /= 10; } while (value);
        for (i = 0; i < n; i++) out[i] = digits[n - 1 - i];
        return n;
    }

    /* Write a number in lower-case hexadecimal; returns how many digits. */
    static inline int armature_hexadecimal(char *out, uint64_t value)
    {
        char digits[16];
        int n = 0, i;
        do { digits[n++] = "0123456789abcdef"[value & 15]; value >>= 4; } while (value);
        for (i = 0; i < n; i++) out[i] = digits[n - 1 - i];
        return n;
    }
    """
    const char* find_control "armature_find_control"(const char* p, const char* end) noexcept nogil
    const char* find_not_in "armature_find_not_in"(const char* p, const char* end, const unsigned char* table) noexcept nogil
    bint same_token "armature_same_token"(const char* p, const char* lower, size_t n) noexcept nogil
    int decimal "armature_decimal"(char* out, unsigned long long value) noexcept nogil
    int hexadecimal "armature_hexadecimal"(char* out, unsigned long long value) noexcept nogil


cdef inline bytes exact_bytes(object data):
    """What may be walked as bytes; a subclass could lie about itself, and None has none."""
    if type(data) is not bytes:
        raise TypeError(f"Expected bytes, got {type(data).__name__}")
    return <bytes> data
