// Kernels of a CPU engine: products with packed weights, and attention over pages where they are. Float32 inside.
// They become a part of the compiled engine (cpu.py), which calls them as AOTInductor calls PyTorch's own.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int LANES = Vec::size();
constexpr int WIDTH = 16, PARTS = WIDTH / LANES;  // outputs of a panel
constexpr int ROWS = LANES == 16 ? 12 : 6;        // what the registers hold
constexpr int64_t DEPTH = 1024;                   // of a slice of a panel, 64 KiB in float32
constexpr int64_t BLOCK = 32768;                  // values of x, 128 KiB
constexpr int64_t WORTH_WIDENING = 12;            // rows of x from which a slice is widened once, not for each ROWS
constexpr int64_t QUERIES = 16;                   // rows that share one reading of a page
constexpr float LEAST = -1e30f;

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
using at::BFloat16;
using at::Half;

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }

inline Floats load(const BFloat16* p) {
  return (Floats)(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16);
}

inline float all(Vec x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

inline float all(const Floats& x) { return all(Vec::loadu(&x)); }

inline Floats& at(float* p) { return *reinterpret_cast<Floats*>(p); }

// ---- y = x · w. After "Anatomy of high-performance matrix multiplication" (Goto and van de Geijn, 2008).

// y += x · w for COUNT rows of x [.., in] and w [in, WIDTH], whose rows are `apart`. The sums stay in registers; STEPS
// independent ones hide the latency of an addition when rows are few. Memory is asked for what lies `next`, `step`
// bytes with each row of w. PANELS of w, each `panel` behind the one before, share what is read of x.
template <int COUNT, int STEPS, bool AHEAD, int PANELS = 1, class Weight>
inline void tile(const float* x, int64_t between, int64_t in, const Weight* w, int64_t apart, float* y, int64_t stride,
                 const char* next, int64_t step, int64_t panel = 0) {
  constexpr int parts = PANELS * PARTS;
  Floats sum[STEPS][COUNT][parts] = {};
  for (int64_t k = 0; k < in; k += STEPS)
    for (int s = 0; s < STEPS; s++) {
      if constexpr (AHEAD) __builtin_prefetch(next + (k + s) * step);
      Floats part[parts];
      for (int i = 0; i < parts; i++) part[i] = load(w + i / PARTS * panel + (k + s) * apart + i % PARTS * LANES);
      for (int row = 0; row < COUNT; row++)
        for (int i = 0; i < parts; i++) sum[s][row][i] += x[row * between + k + s] * part[i];
    }
  for (int row = 0; row < COUNT; row++)
    for (int i = 0; i < parts; i++) {
      for (int s = 1; s < STEPS; s++) sum[0][row][i] += sum[s][row][i];
      at(y + row * stride + i * LANES) += sum[0][row][i];
    }
}

template <bool AHEAD = false, int COUNT = ROWS, class Weight>
inline void product(const float* x, int64_t between, int64_t rows, int64_t in, const Weight* w, int64_t apart, float* y,
                    int64_t stride, const char* next = nullptr, int64_t step = 0) {
  constexpr int steps = COUNT == 1 ? 8 / PARTS : COUNT == 2 ? 4 / PARTS : 1;
  for (; rows >= COUNT; rows -= COUNT, x += COUNT * between, y += COUNT * stride, next += in * step) {
    if (COUNT == ROWS && rows == 2 * ROWS - 2) break;  // two more of ROWS - 1 are faster than ROWS and a few
    if (in % steps)
      tile<COUNT, 1, AHEAD>(x, between, in, w, apart, y, stride, next, step);
    else
      tile<COUNT, steps, AHEAD>(x, between, in, w, apart, y, stride, next, step);
  }
  if constexpr (COUNT > 1)
    if (rows) product<AHEAD, COUNT - 1>(x, between, rows, in, w, apart, y, stride, next, step);
}

// The same for two panels at once.
template <class Weight>
inline void products(const float* x, int64_t between, int64_t rows, int64_t in, const Weight* w, int64_t panel,
                     float* y, int64_t stride) {
  for (; rows >= ROWS; rows -= ROWS, x += ROWS * between, y += ROWS * stride)
    tile<ROWS, 1, false, 2>(x, between, in, w, WIDTH, y, stride, nullptr, 0, panel);
  for (int i = 0; i < 2; i++) product(x, between, rows, in, w + i * panel, WIDTH, y + i * WIDTH, stride);
}

// A few rows wait for the weights: these come in slices, the next one while all rows are multiplied with this one. Many
// wait for x where a panel is no wider than a vector: two panels share it, and all of them pass a block of rows that
// stays in the cache.
template <class Weight>
void linear(const float* x, int64_t rows, int64_t in, const Weight* weight, float* y, int64_t panels) {
  const bool few = rows > 1 && rows <= 8 * ROWS, many = PARTS == 1 && rows > 8 * ROWS;
  const int64_t depth = few ? std::min(DEPTH, in) : in, step = WIDTH * sizeof(Weight) / ((rows + ROWS - 1) / ROWS),
                out = panels * WIDTH, most = many ? 2 : 1,
                high = many ? std::max<int64_t>(1, BLOCK / in / ROWS) * ROWS : std::max<int64_t>(1, rows);
#pragma omp parallel
  {
    std::vector<float> wide(sizeof(Weight) == 2 && rows >= WORTH_WIDENING ? most * depth * WIDTH : 0);
#pragma omp for collapse(2)
    for (int64_t first = 0; first < rows; first += high)
      for (int64_t number = 0; number < panels; number += most) {
        const int64_t count = std::min(most, panels - number), height = std::min(high, rows - first);
        const float* block = x + first * in;
        float* goal = y + first * out + number * WIDTH;
        for (int64_t row = 0; row < height; row++) std::fill_n(goal + row * out, count * WIDTH, 0.0f);
        for (int64_t k = 0; k < in; k += depth) {
          const int64_t length = std::min(depth, in - k), size = length * WIDTH;
          const Weight* slice = weight + (number * in + k) * WIDTH;
          auto multiply = [&](const auto* w) {
            if (few)
              product<true>(x + k, in, rows, length, w, WIDTH, goal, out, (const char*)(slice + size), step);
            else if (count == 2)
              products(block, in, height, in, w, size, goal, out);
            else
              product(block, in, height, in, w, WIDTH, goal, out);
          };
          for (size_t i = 0; i < (wide.empty() ? 0 : count * size); i += LANES) at(&wide[i]) = load(slice + i);
          if (wide.empty())
            multiply(slice);
          else
            multiply(wide.data());
        }
      }
  }
}

// ---- Attention: an online softmax, page by page, after "Flash-Decoding for long-context inference" (Dao et al.,
// 2023).

// One page of one KV head as float32: a copy [tokens, width], or the page itself; `stride` from token to token.
template <class T>
const float* fetch(const T* from, int64_t tokens, int64_t& stride, int64_t size, float* to, int64_t width) {
  if constexpr (std::is_same_v<T, float>)
    if (size == width) return from;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t i = 0; i < size; i++) to[t * width + i] = from[t * stride + i];
  stride = width;
  return to;
}

// score[row] = q[row] · key for COUNT rows.
template <int COUNT = 4>
void dots(const float* q, int64_t rows, const float* key, int64_t width, float* score, int64_t stride) {
  for (; rows >= COUNT; rows -= COUNT, q += COUNT * width, score += COUNT * stride) {
    Floats sum[COUNT] = {};
    for (int64_t i = 0; i < width; i += LANES) {
      Floats k = load(key + i);
      for (int row = 0; row < COUNT; row++) sum[row] += load(q + row * width + i) * k;
    }
    for (int row = 0; row < COUNT; row++) {
      score[row * stride] = all(sum[row]);
    }
  }
  if constexpr (COUNT > 1)
    if (rows) dots<COUNT - 1>(q, rows, key, width, score, stride);
}

// Scores of one row become weights, and norm their sum. When `most` rises, what was before shrinks by as much.
void soften(float* score, int64_t length, float& most, float& norm, float* y, int64_t width) {
  float peak = std::max(most, *std::max_element(score, score + length)), shrink = std::exp(most - peak);
  Vec sum(0.0f);
  for (int64_t t = 0; t < length; t += LANES) {
    Vec weight = (Vec::loadu(score + t) - Vec(peak)).exp();
    weight.store(score + t);
    sum = sum + weight;
  }
  for (int64_t i = 0; i < width; i += LANES) at(y + i) *= shrink;
  norm = norm * shrink + all(sum);
  most = peak;
}

struct Sizes {
  int64_t heads, kv_heads, size, page, pages;
  int64_t group() const { return heads / kv_heads; }
  int64_t width() const { return (size + WIDTH - 1) / WIDTH * WIDTH; }
  int64_t length() const { return (page + WIDTH - 1) / WIDTH * WIDTH; }
};

// Float32 scratch of one thread.
struct Scratch {
  std::vector<float> q, y, score, keys, values, most, norm;
  Scratch(const Sizes& s, int64_t rows)
      : q(rows * s.width()),
        y(q.size()),
        score(rows * s.length()),
        keys(s.length() * s.width()),
        values(keys.size()),
        most(rows),
        norm(rows) {}
};

// `count` tokens of one sequence and the query heads of one KV head.
template <class T>
void attend(const Sizes& s, const T* q, const T* keys, const T* values, const int64_t* table, const int64_t* positions,
            int64_t count, int64_t kv, T* y, Scratch& own) {
  const int64_t group = s.group(), rows = count * group, width = s.width(), length = s.length(),
                apart = s.kv_heads * s.size;
  auto place = [&](int64_t row) { return (row / group * s.heads + kv * group + row % group) * s.size; };
  const float scale = 1 / std::sqrt(float(s.size));
  std::fill(own.y.begin(), own.y.end(), 0.0f);
  std::fill(own.norm.begin(), own.norm.end(), 0.0f);
  std::fill(own.most.begin(), own.most.end(), LEAST);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < s.size; i++) own.q[row * width + i] = scale * float(q[place(row) + i]);
  const int64_t last = *std::max_element(positions, positions + count);
  for (int64_t begin = 0; begin <= last; begin += s.page) {
    const int64_t tokens = std::min(s.page, last + 1 - begin),
                  block = (table[begin / s.page] * s.page * s.kv_heads + kv) * s.size;
    int64_t from_key = apart, from_value = apart;
    const float* key = fetch(keys + block, tokens, from_key, s.size, own.keys.data(), width);
    const float* value = fetch(values + block, tokens, from_value, s.size, own.values.data(), width);
    for (int64_t t = 0; t < tokens; t++) dots(own.q.data(), rows, key + t * from_key, width, &own.score[t], length);
    for (int64_t row = 0; row < rows; row++) {
      float* score = &own.score[row * length];
      std::fill(score + std::clamp<int64_t>(positions[row / group] + 1 - begin, 0, tokens), score + length, LEAST);
      soften(score, length, own.most[row], own.norm[row], &own.y[row * width], width);
    }
    for (int64_t i = 0; i < width; i += WIDTH)
      product(own.score.data(), length, rows, tokens, value + i, from_value, &own.y[i], width);
  }
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < s.size; i++) y[place(row) + i] = own.y[row * width + i] / own.norm[row];
}

template <class T>
void attention(const Sizes& s, const T* q, const T* keys, const T* values, const int64_t* tables, const int64_t* owners,
               const int64_t* positions, int64_t tokens, T* y) {
  const int64_t most = std::max<int64_t>(1, QUERIES / s.group());
  std::vector<int64_t> starts;
  for (int64_t token = 0; token < tokens; token++)
    if (!token || owners[token] != owners[token - 1] || token - starts.back() == most) starts.push_back(token);
  const int64_t runs = starts.size();
  starts.push_back(tokens);
#pragma omp parallel
  {
    Scratch own(s, most * s.group());
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t run = 0; run < runs; run++)
      for (int64_t kv = 0; kv < s.kv_heads; kv++) {
        const int64_t first = starts[run], start = first * s.heads * s.size;
        attend(s, q + start, keys, values, tables + owners[first] * s.pages, positions + first, starts[run + 1] - first,
               kv, y + start, own);
      }
  }
}

template <class T>
T* data(AtenTensorHandle tensor) {
  void* found;
  aoti_torch_get_data_ptr(tensor, &found);
  return static_cast<T*>(found);
}

const int64_t* sizes(AtenTensorHandle tensor) {
  int64_t* found;
  aoti_torch_get_sizes(tensor, &found);
  return found;
}

int32_t dtype(AtenTensorHandle tensor) {
  int32_t found;
  aoti_torch_get_dtype(tensor, &found);
  return found;
}

}  // namespace

// x float32 [rows, in], weight [panels, in, 16], both contiguous; result float32 [rows, panels * 16].
extern "C" AOTITorchError aoti_torch_cpu_packed_linear(AtenTensorHandle x, AtenTensorHandle weight,
                                                       AtenTensorHandle* result) {
  const int64_t rows = sizes(x)[0], in = sizes(x)[1], panels = sizes(weight)[0];
  const int64_t shape[] = {rows, panels * WIDTH}, strides[] = {panels * WIDTH, 1};
  if (auto error = aoti_torch_empty_strided(2, shape, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(),
                                            0, result))
    return error;
  if (dtype(weight) == aoti_torch_dtype_bfloat16())
    linear(data<float>(x), rows, in, data<BFloat16>(weight), data<float>(*result), panels);
  else
    linear(data<float>(x), rows, in, data<float>(weight), data<float>(*result), panels);
  return AOTI_TORCH_SUCCESS;
}

// q [tokens, heads, size], keys and values [blocks, page, kv_heads, size]; int64: tables [sequences, pages], owners and
// positions [tokens]; all contiguous. The result is as q.
extern "C" AOTITorchError aoti_torch_cpu_paged_attention(AtenTensorHandle q, AtenTensorHandle keys,
                                                         AtenTensorHandle values, AtenTensorHandle tables,
                                                         AtenTensorHandle owners, AtenTensorHandle positions,
                                                         AtenTensorHandle* result) {
  const int64_t tokens = sizes(q)[0], heads = sizes(q)[1], size = sizes(q)[2];
  const Sizes s{heads, sizes(keys)[2], size, sizes(keys)[1], sizes(tables)[1]};
  const int64_t shape[] = {tokens, heads, size}, strides[] = {heads * size, size, 1};
  if (auto error = aoti_torch_empty_strided(3, shape, strides, dtype(q), aoti_torch_device_type_cpu(), 0, result))
    return error;
  auto run = [&]<class T>(T*) {
    attention(s, data<T>(q), data<T>(keys), data<T>(values), data<int64_t>(tables), data<int64_t>(owners),
              data<int64_t>(positions), tokens, data<T>(*result));
  };
  if (dtype(q) == aoti_torch_dtype_bfloat16())
    run((BFloat16*)nullptr);
  else if (dtype(q) == aoti_torch_dtype_float16())
    run((Half*)nullptr);
  else
    run((float*)nullptr);
  return AOTI_TORCH_SUCCESS;
}
