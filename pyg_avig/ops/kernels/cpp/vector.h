// What the kernels share: vectors of any processor.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// Compiled once for each kind of processor; the one at hand is chosen when the library is loaded.
#if __GNUC__ >= 12
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define FOR_EACH_CPU
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int64_t kVectorBytes = 64;

template <typename T>
struct Vector {
  static constexpr int64_t size = kVectorBytes / sizeof(T);
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T half __attribute__((vector_size(kVectorBytes / 2)));
  typedef T quarter __attribute__((vector_size(kVectorBytes / 4)));

  static INLINE type load(const T* from) {
    type vector;
    std::memcpy(&vector, from, kVectorBytes);
    return vector;
  }

  static INLINE T sum(type vector) {
    half halves[2];
    std::memcpy(halves, &vector, kVectorBytes);
    halves[0] += halves[1];
    quarter quarters[2];
    std::memcpy(quarters, halves, kVectorBytes / 2);
    quarters[0] += quarters[1];
    T total = 0;
    for (unsigned lane = 0; lane < size / 4; ++lane) total += quarters[0][lane];
    return total;
  }
};

// A cosine: a product, scaled to unit vectors and held to [-1, 1], which rounding may pass.
template <typename T>
INLINE T cosine(T product, T scale_a, T scale_b) {
  const T scaled = product * scale_a * scale_b;
  return scaled > 1 ? T(1) : scaled < -1 ? T(-1) : scaled;  // NaN stays NaN.
}

}  // namespace
