// Dot products of several rows at once, so that each number is loaded once for several of them.

#pragma once

#include "numbers.h"

namespace {

constexpr int64_t kDots = 4;  // Of one row with as many others.

template <int64_t bytes, int64_t rows, int64_t others, typename T>
INLINE void add_dots(const T* const* a, const T* const* b, int64_t c, int64_t channels,
                     Vector<Sum<T>, bytes> (&sums)[rows][kDots], Sum<T> (&out)[rows][kDots]) {
  typedef Sum<T> S;
  constexpr int64_t size = bytes / sizeof(S);
  for (; c + size <= channels; c += size) {
    Vector<S, bytes> row[rows];
    for (int64_t i = 0; i < rows; ++i) row[i] = load<bytes>(a[i] + c);
    for (int64_t j = 0; j < others; ++j) {
      const auto other = load<bytes>(b[j] + c);
      for (int64_t i = 0; i < rows; ++i) sums[i][j] += row[i] * other;
    }
  }
  if constexpr (bytes > kLeast) {
    Vector<S, bytes / 2> halves[rows][kDots] = {};
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < others; ++j) halves[i][j] = folded<S, bytes>(sums[i][j]);
    add_dots<bytes / 2, rows, others>(a, b, c, channels, halves, out);
  } else {
    for (int64_t i = 0; i < rows; ++i) sum_each(sums[i], out[i]);
    for (; c < channels; ++c)
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < others; ++j)
          out[i][j] += load<sizeof(S)>(a[i] + c) * load<sizeof(S)>(b[j] + c);
  }
}

// out[i][j] = <row a[i], row b[j]>.
template <int64_t rows, int64_t others, typename T>
INLINE void dots(const T* const* a, const T* const* b, int64_t channels,
                 Sum<T> (&out)[rows][kDots]) {
  Vector<Sum<T>, kBytes> sums[rows][kDots] = {};
  add_dots<kBytes, rows, others>(a, b, 0, channels, sums, out);
}

// Products as cosines: scaled to unit vectors and held to [-1, 1], which rounding may pass.
template <typename S>
INLINE void to_cosines(S (&products)[kDots], S scale_a, const S (&scales_b)[kDots]) {
  typedef Vector<S, kDots * sizeof(S)> V;  // Of scalars, each comparison would be a branch.
  const V one = V{} + 1, scaled = as<V>(products) * scale_a * as<V>(scales_b);
  const V most = scaled > one ? one : scaled;  // NaN stays NaN.
  const V held = most < -one ? -one : most;
  std::memcpy(products, &held, sizeof(products));
}

}  // namespace
