// BatchNorm in training and the exact GELU behind it, over rows of channels: each direction reads its
// input twice, once for sums over the rows and once for the result, and keeps nothing else.

#include <algorithm>
#include <cmath>
#include <memory>

#include "numbers.h"

namespace {

constexpr int64_t kRows = 4;    // Taken at once, so that sums are loaded and stored once for them.
constexpr int64_t kBlock = 64;  // Times these; then sums go on in double precision.

// e^x for x <= 0: 2^n e^r, |r| <= ln(2) / 2, with e^r as its Taylor polynomial.
template <typename V, typename U>
INLINE V exp_of_negative(V x) {
  const V least = V{} - 87, clipped = x > least ? x : least;
  const V magic = V{} + 0x1.8p23f;  // Adding it rounds to an integer, which its last bits are then.
  const V n = clipped * 0x1.715476p0f + magic, whole = n - magic;
  const V r = clipped - whole * 0x1.62e4p-1f - whole * 0x1.7f7d1cp-20f;
  V e = V{} + 1.f / 5040;
  for (const float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) e = e * r + c;
  return as<V>(as<U>(e) + (as<U>(n) << 23));
}

// The normal distribution's cumulative function and density at z. In single precision the first by
// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, with an error of 1e-7.
template <int64_t bytes, typename S>
INLINE void normal(Vector<S, bytes> z, Vector<S, bytes>& below, Vector<S, bytes>& density) {
  typedef Vector<S, bytes> V;
  if constexpr (std::is_same_v<S, float>) {
    const V size = z < 0 ? -z : z;
    const V e = exp_of_negative<V, Vector<uint32_t, bytes>>(z * z * -0.5f);
    const V t = 1 / (1 + size * (0.3275911f * 0.70710678f));
    V tail = V{} + 1.061405429f;
    for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
      tail = tail * t + c;
    tail *= t * e * 0.5f;
    below = z < 0 ? tail : 1 - tail;
    density = e * 0.39894228f;
  } else {
    S in[bytes / sizeof(S)], cumulative[bytes / sizeof(S)], densities[bytes / sizeof(S)];
    std::memcpy(in, &z, bytes);
    for (uint64_t n = 0; n < bytes / sizeof(S); ++n) {
      cumulative[n] = 0.5 * std::erfc(-in[n] * M_SQRT1_2);
      densities[n] = std::exp(-0.5 * in[n] * in[n]) * (M_SQRT1_2 * M_2_SQRTPI * 0.5);
    }
    std::memcpy(&below, cumulative, bytes);
    std::memcpy(&density, densities, bytes);
  }
}

// GELU's slope at z.
template <int64_t bytes, typename S>
INLINE Vector<S, bytes> slope_at(Vector<S, bytes> z) {
  Vector<S, bytes> below, density;
  normal<bytes, S>(z, below, density);
  return below + z * density;
}

// Calls one<bytes>(c) for all channels, as many at once as a register takes.
template <typename S, int64_t bytes = kBytes, typename One>
INLINE void for_each_channel(int64_t channels, One one, int64_t c = 0) {
  constexpr int64_t size = bytes / sizeof(S);
  for (; c + size <= channels; c += size) one(std::integral_constant<int64_t, bytes>(), c);
  if constexpr (size > 1) for_each_channel<S, kNarrower<S, bytes>>(channels, one, c);
}

// Sums over rows of two numbers a channel, which add(bytes, row, c, first, second) adds to both.
template <typename S, typename Add>
void sum_rows(int64_t rows, int64_t channels, S* sums, int64_t threads, Add add) {
  const std::unique_ptr<double[]> parts(new double[threads * 2 * channels]());
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t part = 0; part < threads; ++part) {
    const std::unique_ptr<S[]> some(new S[2 * channels]);
    double* const mine = parts.get() + part * 2 * channels;
    const int64_t end = rows * (part + 1) / threads;
    for (int64_t block = rows * part / threads; block < end; block += kRows * kBlock) {
      std::fill_n(some.get(), 2 * channels, S(0));
      const int64_t last = std::min(end, block + kRows * kBlock);
      for (int64_t row = block; row < last; row += kRows) {
        const int64_t number = std::min(kRows, last - row);
        for_each_channel<S>(channels, [&](auto bytes, int64_t c) {
          auto first = load<bytes>(some.get() + c), second = load<bytes>(some.get() + channels + c);
          if (number == kRows)
            for (int64_t n = 0; n < kRows; ++n) add(bytes, row + n, c, first, second);
          else
            for (int64_t n = 0; n < number; ++n) add(bytes, row + n, c, first, second);
          store<bytes>(some.get() + c, first);
          store<bytes>(some.get() + channels + c, second);
        });
      }
      for (int64_t n = 0; n < 2 * channels; ++n) mine[n] += some[n];
    }
  }
  for (int64_t n = 0; n < 2 * channels; ++n) {
    double sum = 0;
    for (int64_t part = 0; part < threads; ++part) sum += parts[part * 2 * channels + n];
    sums[n] = S(sum);
  }
}

// Calls one(bytes, where, c) for all numbers.
template <typename S, typename One>
void for_each_number(int64_t rows, int64_t channels, int64_t threads, One one) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < rows; ++row)
    for_each_channel<S>(channels,
                        [&](auto bytes, int64_t c) { one(bytes, row * channels + c, c); });
}

// Sums of x - about and of its squares: with `about` near the mean no digits cancel.
template <typename T>
void norm_moments(const T* x, const Sum<T>* about, Sum<T>* sums, int64_t rows, int64_t channels,
                  int64_t threads) {
  sum_rows(rows, channels, sums, threads,
           [=](auto bytes, int64_t row, int64_t c, auto& first, auto& second) {
             const auto off = load<bytes>(x + row * channels + c) - load<bytes>(about + c);
             first += off;
             second += off * off;
           });
}

// GELU of x * scale + shift.
template <typename T>
void norm_gelu(const T* x, const Sum<T>* scale, const Sum<T>* shift, T* out, int64_t rows,
               int64_t channels, int64_t threads) {
  typedef Sum<T> S;
  for_each_number<S>(rows, channels, threads, [=](auto bytes, int64_t where, int64_t c) {
    Vector<S, bytes> below, density;
    const Vector<S, bytes> z =
        load<bytes>(x + where) * load<bytes>(scale + c) + load<bytes>(shift + c);
    normal<bytes, S>(z, below, density);
    store<bytes>(out + where, z * below);
  });
}

// The gradients before GELU; their sums, and those of them times x - about.
template <typename T>
void norm_gelu_backward(const T* x, const T* grad, const Sum<T>* scale, const Sum<T>* shift,
                        const Sum<T>* about, T* before, Sum<T>* sums, int64_t rows,
                        int64_t channels, int64_t threads) {
  typedef Sum<T> S;
  sum_rows(rows, channels, sums, threads,
           [=](auto bytes, int64_t row, int64_t c, auto& first, auto& second) {
             const int64_t where = row * channels + c;
             const Vector<S, bytes> value = load<bytes>(x + where);
             const Vector<S, bytes> z = value * load<bytes>(scale + c) + load<bytes>(shift + c);
             const Vector<S, bytes> mine = load<bytes>(grad + where) * slope_at<bytes, S>(z);
             store<bytes>(before + where, mine);
             first += mine;
             second += mine * (value - load<bytes>(about + c));
           });
}

// out * scale + x * along + offset, in place.
template <typename T>
void norm_backward(T* out, const T* x, const Sum<T>* scale, const Sum<T>* along,
                   const Sum<T>* offset, int64_t rows, int64_t channels, int64_t threads) {
  for_each_number<Sum<T>>(rows, channels, threads, [=](auto bytes, int64_t where, int64_t c) {
    store<bytes>(out + where, load<bytes>(out + where) * load<bytes>(scale + c) +
                                  load<bytes>(x + where) * load<bytes>(along + c) +
                                  load<bytes>(offset + c));
  });
}

}  // namespace

#define FOR_TYPE(T, name)                                                                        \
  extern "C" void norm_moments_##name(const T* x, const Sum<T>* about, Sum<T>* sums,             \
                                      int64_t rows, int64_t channels, int64_t threads) {         \
    norm_moments(x, about, sums, rows, channels, threads);                                       \
  }                                                                                              \
  extern "C" void norm_gelu_##name(const T* x, const Sum<T>* scale, const Sum<T>* shift, T* out, \
                                   int64_t rows, int64_t channels, int64_t threads) {            \
    norm_gelu(x, scale, shift, out, rows, channels, threads);                                    \
  }                                                                                              \
  extern "C" void norm_gelu_backward_##name(                                                     \
      const T* x, const T* grad, const Sum<T>* scale, const Sum<T>* shift, const Sum<T>* about,  \
      T* before, Sum<T>* sums, int64_t rows, int64_t channels, int64_t threads) {                \
    norm_gelu_backward(x, grad, scale, shift, about, before, sums, rows, channels, threads);     \
  }                                                                                              \
  extern "C" void norm_backward_##name(T* out, const T* x, const Sum<T>* scale,                  \
                                       const Sum<T>* along, const Sum<T>* offset, int64_t rows,  \
                                       int64_t channels, int64_t threads) {                      \
    norm_backward(out, x, scale, along, offset, rows, channels, threads);                        \
  }

FOR_TYPE(float, float)
FOR_TYPE(double, double)
FOR_TYPE(BFloat16, bfloat16)
FOR_TYPE(Float16, float16)
