# One switch for every optimisation that a build can leave out, named as its row of the catalogue (HOT: hot paths, RUN: run
# time), with a word behind it where a row holds several. A build with `ARMATURE_WITHOUT="HOT-02 HOT-13-date"` sets
# theirs to 0; the others are 1. They are constants of the preprocessor, so that the compiler folds them away. The
# answers do not depend on them. benchmarks/http/switches.py says what each one is and measures what it brings.

cdef extern from *:
    """
    #ifndef ARMATURE_HOT_02
    #define ARMATURE_HOT_02 1
    #endif
    #ifndef ARMATURE_HOT_02_LENGTHS
    #define ARMATURE_HOT_02_LENGTHS 1
    #endif
    #ifndef ARMATURE_HOT_07
    #define ARMATURE_HOT_07 1
    #endif
    #ifndef ARMATURE_HOT_08
    #define ARMATURE_HOT_08 1
    #endif
    #ifndef ARMATURE_HOT_08_CHUNK
    #define ARMATURE_HOT_08_CHUNK 1
    #endif
    #ifndef ARMATURE_HOT_09
    #define ARMATURE_HOT_09 1
    #endif
    #ifndef ARMATURE_HOT_09_NAMES
    #define ARMATURE_HOT_09_NAMES 1
    #endif
    #ifndef ARMATURE_HOT_10
    #define ARMATURE_HOT_10 1
    #endif
    #ifndef ARMATURE_HOT_12
    #define ARMATURE_HOT_12 1
    #endif
    #ifndef ARMATURE_HOT_13_CHECKED
    #define ARMATURE_HOT_13_CHECKED 1
    #endif
    #ifndef ARMATURE_HOT_13_DATE
    #define ARMATURE_HOT_13_DATE 1
    #endif
    #ifndef ARMATURE_HOT_14
    #define ARMATURE_HOT_14 1
    #endif
    #ifndef ARMATURE_HOT_19
    #define ARMATURE_HOT_19 1
    #endif
    #ifndef ARMATURE_HOT_21
    #define ARMATURE_HOT_21 1
    #endif
    #ifndef ARMATURE_HOT_22
    #define ARMATURE_HOT_22 1
    #endif
    #ifndef ARMATURE_HOT_27
    #define ARMATURE_HOT_27 1
    #endif
    #ifndef ARMATURE_HOT_30
    #define ARMATURE_HOT_30 1
    #endif
    #ifndef ARMATURE_HOT_30_BODY
    #define ARMATURE_HOT_30_BODY 1
    #endif
    #ifndef ARMATURE_HOT_30_WHOLE
    #define ARMATURE_HOT_30_WHOLE 1
    #endif
    #ifndef ARMATURE_HOT_35
    #define ARMATURE_HOT_35 1
    #endif
    #ifndef ARMATURE_HOT_35_NATIVE
    #define ARMATURE_HOT_35_NATIVE 1
    #endif
    #ifndef ARMATURE_RUN_09
    #define ARMATURE_RUN_09 1
    #endif
    #ifndef ARMATURE_RUN_09_BATCH
    #define ARMATURE_RUN_09_BATCH 1
    #endif
    #ifndef ARMATURE_RUN_18_FEED
    #define ARMATURE_RUN_18_FEED 1
    #endif
    """
    const bint HOT_02 "ARMATURE_HOT_02"
    const bint HOT_02_LENGTHS "ARMATURE_HOT_02_LENGTHS"
    const bint HOT_07 "ARMATURE_HOT_07"
    const bint HOT_08 "ARMATURE_HOT_08"
    const bint HOT_08_CHUNK "ARMATURE_HOT_08_CHUNK"
    const bint HOT_09 "ARMATURE_HOT_09"
    const bint HOT_09_NAMES "ARMATURE_HOT_09_NAMES"
    const bint HOT_10 "ARMATURE_HOT_10"
    const bint HOT_12 "ARMATURE_HOT_12"
    const bint HOT_13_CHECKED "ARMATURE_HOT_13_CHECKED"
    const bint HOT_13_DATE "ARMATURE_HOT_13_DATE"
    const bint HOT_14 "ARMATURE_HOT_14"
    const bint HOT_19 "ARMATURE_HOT_19"
    const bint HOT_21 "ARMATURE_HOT_21"
    const bint HOT_22 "ARMATURE_HOT_22"
    const bint HOT_27 "ARMATURE_HOT_27"
    const bint HOT_30 "ARMATURE_HOT_30"
    const bint HOT_30_BODY "ARMATURE_HOT_30_BODY"
    const bint HOT_30_WHOLE "ARMATURE_HOT_30_WHOLE"
    const bint HOT_35 "ARMATURE_HOT_35"
    const bint HOT_35_NATIVE "ARMATURE_HOT_35_NATIVE"
    const bint RUN_09 "ARMATURE_RUN_09"
    const bint RUN_09_BATCH "ARMATURE_RUN_09_BATCH"
    const bint RUN_18_FEED "ARMATURE_RUN_18_FEED"
