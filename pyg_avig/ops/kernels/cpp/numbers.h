// The numbers that node features may be, and the vectors in which they are computed.
//
// Half-precision numbers are read and written as such and computed in single precision. A vector is
// as wide as the registers of the instruction set that is compiled for.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int64_t kBytes = 64;
#elif defined(__AVX2__)
constexpr int64_t kBytes = 32;
#else
constexpr int64_t kBytes = 16;
#endif
constexpr int64_t kLeast = 16;  // The narrowest vectors; what does not fill one goes one by one.

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <typename T>
struct Sum_ {
  typedef float type;
};
template <>
struct Sum_<double> {
  typedef double type;
};
template <typename T>
using Sum = typename Sum_<T>::type;  // What numbers of this type are summed in.

// `size` numbers side by side; one by one where `bytes` are those of one.
template <typename S, int64_t bytes>
struct Vector_ {
  typedef S type __attribute__((vector_size(bytes)));
};
template <>
struct Vector_<float, 4> {
  typedef float type;
};
template <>
struct Vector_<double, 8> {
  typedef double type;
};
template <>
struct Vector_<uint32_t, 4> {
  typedef uint32_t type;
};
template <>
struct Vector_<uint16_t, 2> {
  typedef uint16_t type;
};
template <typename S, int64_t bytes>
using Vector = typename Vector_<S, bytes>::type;

template <typename S, int64_t bytes>
constexpr int64_t kNarrower = bytes > kLeast ? bytes / 2 : int64_t(sizeof(S));

template <typename To, typename From>
INLINE To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <typename To, typename T>
INLINE To read(const T* from) {
  To to;
  std::memcpy(&to, from, sizeof(To));
  return to;
}

// The bits of half-precision numbers as those of single-precision ones, and back, rounded to the
// nearest, ties to even. U is uint32_t and F float, or vectors of them.

template <typename U, typename F>
INLINE U bfloat16_bits(F x) {
  const U bits = as<U>(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return x != x ? bits >> 16 | 0x40 : rounded;  // Rounding could take a NaN to infinity.
}

template <typename F, typename U>
INLINE F from_float16_bits(U bits) {
  const U shifted = (bits & 0x7fff) << 13;
  const U scaled = as<U>(as<F>(shifted) * 0x1p112f);  // From one bias of the exponent to another.
  const U finite_or_not = shifted >= 0x0f800000 ? scaled | 0x7f800000 : scaled;
  return as<F>(finite_or_not | (bits & 0x8000) << 16);
}

template <typename U, typename F>
INLINE U float16_bits(F x) {
  const U bits = as<U>(x) & 0x7fffffff, sign = as<U>(x) >> 16 & 0x8000;
  const U normal = (bits + 0xc8000fff + (bits >> 13 & 1)) >> 13;
  const U small = as<U>(as<F>(bits) + 0.5f) - 0x3f000000;  // Its last bit is the half's last.
  const U finite = bits < 0x38800000 ? small : normal;
  const U infinite = bits > 0x7f800000 ? U{} + 0x7e00 : U{} + 0x7c00;
  return (bits >= 0x47800000 ? infinite : finite) | sign;
}

// Sixteen bits a number as thirty-two.
template <int64_t bytes>
INLINE Vector<uint32_t, bytes> load_bits(const void* from) {
  const auto bits = read<Vector<uint16_t, bytes / 2>>(static_cast<const uint16_t*>(from));
  if constexpr (bytes == sizeof(float))
    return bits;
  else
    return __builtin_convertvector(bits, Vector<uint32_t, bytes>);
}

template <int64_t bytes>
INLINE void store_bits(void* to, Vector<uint32_t, bytes> bits) {
  Vector<uint16_t, bytes / 2> low;
  if constexpr (bytes == sizeof(float))
    low = static_cast<uint16_t>(bits);
  else
    low = __builtin_convertvector(bits, Vector<uint16_t, bytes / 2>);
  std::memcpy(to, &low, sizeof(low));
}

template <int64_t bytes>
INLINE Vector<float, bytes> load_float16(const Float16* from) {
#if defined(__F16C__)
#if defined(__AVX512F__)
  if constexpr (bytes == 64) return as<Vector<float, 64>>(_mm512_cvtph_ps(read<__m256i>(from)));
#endif
  if constexpr (bytes == 32) return as<Vector<float, 32>>(_mm256_cvtph_ps(read<__m128i>(from)));
  if constexpr (bytes == 16)
    return as<Vector<float, 16>>(_mm_cvtph_ps(_mm_cvtsi64_si128(read<int64_t>(from))));
#elif defined(__aarch64__)
  if constexpr (bytes == 16) return as<Vector<float, 16>>(vcvt_f32_f16(read<float16x4_t>(from)));
#endif
  return from_float16_bits<Vector<float, bytes>>(load_bits<bytes>(from));
}

// `bytes` of sums from as many numbers in memory.
template <int64_t bytes, typename T>
INLINE Vector<Sum<T>, bytes> load(const T* from) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return as<Vector<float, bytes>>(load_bits<bytes>(from) << 16);
  else if constexpr (std::is_same_v<T, Float16>)
    return load_float16<bytes>(from);
  else
    return read<Vector<T, bytes>>(from);
}

template <int64_t bytes, typename T>
INLINE void store(T* to, Vector<Sum<T>, bytes> sums) {
  if constexpr (std::is_same_v<T, BFloat16>)
    store_bits<bytes>(to, bfloat16_bits<Vector<uint32_t, bytes>>(sums));
  else if constexpr (std::is_same_v<T, Float16>)
    store_bits<bytes>(to, float16_bits<Vector<uint32_t, bytes>>(sums));
  else
    std::memcpy(to, &sums, bytes);
}

// The two halves of a vector, added.
template <typename S, int64_t bytes>
INLINE Vector<S, bytes / 2> folded(Vector<S, bytes> vector) {
  struct Halves {
    Vector<S, bytes / 2> low, high;
  };
  const auto halves = as<Halves>(vector);
  return halves.low + halves.high;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Vector<uint32_t, 16>{i, j, k, l})
#endif

// The sums of the numbers in each of four vectors.
INLINE void sum_each(const Vector<float, 16>* four, float* out) {
  typedef Vector<float, 16> V;
  const V a = four[0], b = four[1], c = four[2], d = four[3];
  const V ab = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
  const V cd = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
  store<16>(out, SHUFFLE(ab, cd, 0, 1, 4, 5) + SHUFFLE(ab, cd, 2, 3, 6, 7));
}

INLINE void sum_each(const Vector<double, 16>* four, double* out) {
  for (int64_t n = 0; n < 4; ++n) out[n] = four[n][0] + four[n][1];
}

}  // namespace
