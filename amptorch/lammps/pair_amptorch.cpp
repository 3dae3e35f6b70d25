// SPDX-License-Identifier: GPL-3.0-or-later
//
// `pair_style amptorch`: potentials of AMPTorch in LAMMPS, as a plugin of this one file.
//
//     plugin      load ./amptorchplugin.so
//     pair_style  amptorch
//     pair_coeff  * * MODEL.txt H O Fe
//
// `amptorch export MODEL --format lammps --out MODEL.txt` writes the file, `amptorch lammps
// --build-plugin` compiles this one. From top to bottom: the functions of one variable (exponential,
// cutoff functions, activations); the potential and its file; the evaluation of one atom; the pair
// style, which is all that knows LAMMPS.
//
// The energy of an atom is the output of its element's network on symmetry functions of its
// neighbours: J. Behler, J. Chem. Phys. 134, 074106 (2011). With s = r_jk² and c = cosθ_ijk,
//
//     G2 = Σ_j exp[−η (r_j − Rs)²] fc(r_j)
//     G4 = 2^(1−ζ) Σ_{j<k} (1 + λc)^ζ exp[−η (r_j² + r_k² + s)] fc(r_j) fc(r_k) fc(√s)
//     G5 = the same without √s
//
// G1 is G2 with η = 0, G3 = Σ_j cos(κ r_j) fc(r_j); G2W, G4W and G5W are sums over the neighbours of
// all elements, each weighted by its atomic number. Inside, lengths are in Å and energies in eV.
//
// Loops over neighbours and pairs run along rows of numbers without branches, so that compilers
// make vector instructions of them.

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "pair.h"
#include "update.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

// ---------------------------------------------------------------------------------------------
// Rows of numbers
// ---------------------------------------------------------------------------------------------

// Numbers in one vector register of the widest kind: rows of neighbours begin at multiples of it.
constexpr int LANES = 8;

// Memory that begins with a cache line: a vector that lies in two of them is read twice as slowly.
template <class T> struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class U> Aligned(const Aligned<U> &) {}
  T *allocate(std::size_t n)
  {
    return static_cast<T *>(::operator new(n * sizeof(T), std::align_val_t(64)));
  }
  void deallocate(T *p, std::size_t) { ::operator delete(p, std::align_val_t(64)); }
  bool operator==(const Aligned &) const { return true; }
  bool operator!=(const Aligned &) const { return false; }
};

using Row = std::vector<double, Aligned<double>>;

// Four numbers that are added and multiplied at once: vectors of three and one more.
typedef double Four __attribute__((vector_size(32)));
using Fours = std::vector<Four, Aligned<Four>>;

int whole_lanes(int n) { return (n + LANES - 1) / LANES * LANES; }

// Make room for n numbers; rows never shrink.
template <class T> void reserve(T &row, int n)
{
  if (static_cast<int>(row.size()) < n) row.resize(n + n / 2);
}

// ---------------------------------------------------------------------------------------------
// Functions of one variable
// ---------------------------------------------------------------------------------------------

constexpr double PI = 3.14159265358979323846;

// e^x, to an error of 1e-15 of it, without a branch; |x| above 700 counts as 700.
inline double exponential(double x)
{
  // x = n ln 2 + f with |f| < 0.35: 2^n goes into the exponent of the number, e^f is a series.
  constexpr double LOG2_E = 1.4426950408889634074, LN2_HIGH = 6.93147180369123816490e-01,
                   LN2_LOW = 1.90821492927058770002e-10, ROUND = 6755399441055744.0;
  x = std::min(std::max(x, -700.0), 700.0);
  double n = x * LOG2_E + ROUND;
  std::int64_t bits;
  std::memcpy(&bits, &n, sizeof bits);
  n -= ROUND;
  const double f = (x - n * LN2_HIGH) - n * LN2_LOW;
  double sum = 1.0 / 479001600.0;
  sum = sum * f + 1.0 / 39916800.0;
  sum = sum * f + 1.0 / 3628800.0;
  sum = sum * f + 1.0 / 362880.0;
  sum = sum * f + 1.0 / 40320.0;
  sum = sum * f + 1.0 / 5040.0;
  sum = sum * f + 1.0 / 720.0;
  sum = sum * f + 1.0 / 120.0;
  sum = sum * f + 1.0 / 24.0;
  sum = sum * f + 1.0 / 6.0;
  sum = sum * f + 0.5;
  sum = sum * f + 1.0;
  sum = sum * f + 1.0;
  // The lowest bits of n + ROUND are n itself.
  const std::int64_t exponent = (bits + 1023) << 52;
  double power;
  std::memcpy(&power, &exponent, sizeof power);
  return sum * power;
}

// b^z for a whole number z that the compiler knows.
template <int Z> inline double power(double b)
{
  if constexpr (Z == 0)
    return 1.0;
  else if constexpr (Z % 2)
    return b * power<Z - 1>(b);
  else
    return power<Z / 2>(b * b);
}

// Call f with a function that raises to the power z, by multiplications where z is a small integer.
template <class F> void with_power(double z, F f)
{
  if (z == 0.0) return f([](double b) { return power<0>(b); });
  if (z == 1.0) return f([](double b) { return power<1>(b); });
  if (z == 2.0) return f([](double b) { return power<2>(b); });
  if (z == 3.0) return f([](double b) { return power<3>(b); });
  if (z == 4.0) return f([](double b) { return power<4>(b); });
  if (z == 7.0) return f([](double b) { return power<7>(b); });
  if (z == 8.0) return f([](double b) { return power<8>(b); });
  if (z == 15.0) return f([](double b) { return power<15>(b); });
  if (z == 16.0) return f([](double b) { return power<16>(b); });
  // b = 1 + λ cosθ may be less than 0 by rounding.
  return f([z](double b) { return std::pow(std::max(b, 0.0), z); });
}

// A cutoff function fc(r), 1 up to `inner` and 0 from `radius` on.
struct Cutoff {
  std::string name = "cosine";
  double gamma = 0.0;    // of "polynomial" alone
  double inner = 0.0;
  double radius = 0.0;

  // Compute fc and dfc/d(r²) from n squares of distances.
  void evaluate(const double *squares, int n, double *value, double *slope) const;
};

const char *const CUTOFFS[] = {"cosine", "polynomial", "hard",  "tanh",  "tanh_scaled",
                               "exp",    "poly1",      "poly2", "poly3", "poly4"};

// Evaluate a cutoff function whose value and derivative with respect to x, from 0 at the inner
// radius to 1 at Rc, are what f gives.
template <class F>
void in_x(const Cutoff &cutoff, const double *squares, int n, double *value, double *slope, F f)
{
  const double inner = cutoff.inner, radius = cutoff.radius, scale = 1.0 / (radius - inner);
  for (int i = 0; i < n; ++i) {
    const double r = std::sqrt(squares[i]), x = (r - inner) * scale;
    const auto found = f(x);
    value[i] = r < radius ? (r < inner ? 1.0 : found.first) : 0.0;
    slope[i] = r < radius && r >= inner ? 0.5 * scale * found.second / r : 0.0;
  }
}

void Cutoff::evaluate(const double *squares, int n, double *value, double *slope) const
{
  using Pair = std::pair<double, double>;
  if (name == "cosine" && inner == 0.0) {
    // fc = p², p = cos(π√t/2) with t = r²/Rc², whose series needs no square root: 12 terms leave
    // less than rounding.
    constexpr int TERMS = 12;
    std::array<double, TERMS> series;
    series[0] = 1.0;
    for (int k = 1; k < TERMS; ++k)
      series[k] = -series[k - 1] * (0.25 * PI * PI) / ((2.0 * k - 1.0) * (2.0 * k));
    const double square = radius * radius, scale = 1.0 / square;
    for (int i = 0; i < n; ++i) {
      const double t = std::min(squares[i] * scale, 1.0);
      double p = series[TERMS - 1], d = 0.0;
      for (int k = TERMS - 2; k >= 0; --k) {
        d = d * t + p;
        p = p * t + series[k];
      }
      const double inside = squares[i] < square ? p : 0.0;
      value[i] = inside * inside;
      slope[i] = 2.0 * scale * inside * d;
    }
  } else if (name == "cosine") {
    in_x(*this, squares, n, value, slope, [](double x) {
      return Pair(0.5 * (1.0 + std::cos(PI * x)), -0.5 * PI * std::sin(PI * x));
    });
  } else if (name == "polynomial") {
    const double g = gamma;
    in_x(*this, squares, n, value, slope, [g](double x) {
      const double power = g == 2.0 ? x : std::pow(x, g - 1.0);
      return Pair(1.0 + power * x * (g * x - (g + 1.0)), g * (g + 1.0) * power * (x - 1.0));
    });
  } else if (name == "hard") {
    in_x(*this, squares, n, value, slope, [](double) { return Pair(1.0, 0.0); });
  } else if (name == "tanh" || name == "tanh_scaled") {
    const double scale = name == "tanh" ? 1.0 : 1.0 / std::pow(std::tanh(1.0), 3);
    in_x(*this, squares, n, value, slope, [scale](double x) {
      const double t = std::tanh(1.0 - x);
      return Pair(scale * t * t * t, -3.0 * scale * t * t * (1.0 - t * t));
    });
  } else if (name == "exp") {
    in_x(*this, squares, n, value, slope, [](double x) {
      const double q = (1.0 - x) * (1.0 + x);
      const double f = q < 1e-3 ? 0.0 : exponential(1.0 - 1.0 / q);    // e^-1000 is 0
      return Pair(f, q < 1e-3 ? 0.0 : -2.0 * x * f / (q * q));
    });
  } else if (name == "poly1") {
    in_x(*this, squares, n, value, slope, [](double x) {
      return Pair((2.0 * x - 3.0) * x * x + 1.0, -6.0 * x * (1.0 - x));
    });
  } else if (name == "poly2") {
    in_x(*this, squares, n, value, slope, [](double x) {
      return Pair(((15.0 - 6.0 * x) * x - 10.0) * power<3>(x) + 1.0,
                  -30.0 * power<2>(x * (1.0 - x)));
    });
  } else if (name == "poly3") {
    in_x(*this, squares, n, value, slope, [](double x) {
      return Pair((x * (x * (20.0 * x - 70.0) + 84.0) - 35.0) * power<4>(x) + 1.0,
                  -140.0 * power<3>(x * (1.0 - x)));
    });
  } else {
    in_x(*this, squares, n, value, slope, [](double x) {
      return Pair((x * (x * ((315.0 - 70.0 * x) * x - 540.0) + 420.0) - 126.0) * power<5>(x) + 1.0,
                  -630.0 * power<4>(x * (1.0 - x)));
    });
  }
}

const char *const ACTIVATIONS[] = {"identity",   "tanh",   "sigmoid", "relu",
                                   "silu",       "softplus", "softplus20", "gauss",
                                   "cosine",     "reverse_logistic", "exponential", "harmonic"};

inline double logistic(double z)
{
  const double small = exponential(-std::abs(z));    // e^z may be infinite
  return (z >= 0.0 ? 1.0 : small) / (1.0 + small);
}

inline double softplus(double z)
{
  return std::max(z, 0.0) + std::log1p(exponential(-std::abs(z)));
}

// Replace n numbers z by an activation of them, and write its derivatives.
void activate(const std::string &name, double *z, double *slope, int n)
{
  const auto each = [&](auto f) {
    for (int i = 0; i < n; ++i) {
      const auto found = f(z[i]);
      z[i] = found.first;
      slope[i] = found.second;
    }
  };
  using Pair = std::pair<double, double>;
  if (name == "tanh")
    each([](double x) {
      const double e = exponential(-2.0 * std::abs(x)), t = (1.0 - e) / (1.0 + e);
      return Pair(x < 0.0 ? -t : t, 1.0 - t * t);
    });
  else if (name == "sigmoid")
    each([](double x) { const double y = logistic(x); return Pair(y, y * (1.0 - y)); });
  else if (name == "relu")
    each([](double x) { return Pair(std::max(x, 0.0), x > 0.0 ? 1.0 : 0.0); });
  else if (name == "silu")
    each([](double x) {
      const double y = logistic(x);
      return Pair(x * y, y + x * y * (1.0 - y));
    });
  else if (name == "softplus")
    each([](double x) { return Pair(softplus(x), logistic(x)); });
  else if (name == "softplus20")    // torch's, which ends at 20
    each([](double x) { return x > 20.0 ? Pair(x, 1.0) : Pair(softplus(x), logistic(x)); });
  else if (name == "gauss")
    each([](double x) { const double y = exponential(-0.5 * x * x); return Pair(y, -x * y); });
  else if (name == "cosine")
    each([](double x) { return Pair(std::cos(x), -std::sin(x)); });
  else if (name == "reverse_logistic")
    each([](double x) { const double y = logistic(-x); return Pair(y, -y * (1.0 - y)); });
  else if (name == "exponential")
    each([](double x) { const double y = exponential(-x); return Pair(y, -y); });
  else if (name == "harmonic")
    each([](double x) { return Pair(x * x, 2.0 * x); });
  else
    each([](double x) { return Pair(x, 1.0); });
}

// ---------------------------------------------------------------------------------------------
// The potential and its file
// ---------------------------------------------------------------------------------------------

// A radial function of the neighbours of one element.
struct Radial {
  bool wave;       // G3, cos(κr) in place of the Gaussian
  double eta;      // η in 1/Å², κ of G3 in 1/Å
  double shift;    // Rs in Å
  double weight;
  int feature;
};

// Angular functions that differ in ζ and λ alone share everything else.
struct Shape {
  double zeta, lambda;
  double scale;    // 2^(1−ζ), and the weight of the pair
  int feature;
};

struct Group {
  double eta, shift;
  std::vector<Shape> shapes;
  bool short_polynomial;    // all ζ are whole numbers up to MIX_DEGREE
};

// Functions that depend on cosθ by a polynomial of at most this degree are evaluated as one: beyond
// it the terms of (1 + λc)^ζ cancel each other, and digits are lost.
constexpr int MIX_DEGREE = 4;

// The angular functions of pairs of neighbours of elements a and b, a ≤ b.
struct Channel {
  int a, b;
  bool bounded;    // G4, whose neighbours are within the cutoff of each other
  std::vector<Group> groups;
  bool shifted = false;    // one of the groups has an Rs
};

// G5 of one η and Rs whose ζ are whole numbers up to MOMENTS_DEGREE: (1 + λ r̂_j·r̂_k)^ζ is a
// polynomial in the components of both, so that the sum over pairs is one over products of moments
// Σ_j u_j x^a y^b z^c of each element, and takes as many steps as there are neighbours.
struct MomentShape {
  int a, b;    // elements of the neighbours, a ≤ b
  Shape shape;
};

struct MomentGroup {
  double eta, shift;
  int degree = 0;
  std::vector<MomentShape> shapes;
};

constexpr int MOMENTS_DEGREE = 6;

// The functions of one central element within one cutoff.
struct Sphere {
  Cutoff cutoff;
  std::vector<std::vector<Radial>> radial;    // by the element of the neighbour
  std::vector<Channel> channels;
  std::vector<MomentGroup> moments;
};

struct Layer {
  int n_in, n_out;
  std::string activation;
  Row bias;
  Row weights;       // (n_in, n_out)
  Row transposed;    // (n_out, n_in): both products run along rows
};

struct Element {
  std::string symbol;
  int number = 0;
  double energy = 0.0;    // of a free atom, or what stands for it
  Row shift, factor;      // the input of the network is (G − shift) factor
  std::vector<Sphere> spheres;
  std::vector<Layer> layers;
};

struct Potential {
  std::vector<Element> elements;
  double cutoff = 0.0;    // the largest
  double scale = 1.0;     // of the outputs of the networks, eV
  double mean = 0.0;      // eV, shared by all atoms of the simulation
};

// Lines of a potential's file, as words; what is wrong is an error that names file and line.
class Lines {
 public:
  Lines(std::string file, const std::string &text) : file(std::move(file)), text(text) {}

  // Return the words of the next line that has any; of them, `n` must be there (at least, if
  // `more`), the first of them `keyword` if that is not empty.
  std::vector<std::string> next(const std::string &keyword, int n, bool more = false)
  {
    std::string line;
    while (std::getline(text, line)) {
      ++number;
      std::istringstream part(line.substr(0, line.find('#')));
      std::vector<std::string> words;
      for (std::string word; part >> word;) words.push_back(word);
      if (words.empty()) continue;
      if (!keyword.empty() && words[0] != keyword)
        fail("expected '" + keyword + "', got '" + words[0] + "'");
      const int found = static_cast<int>(words.size());
      if (found < n || (found > n && !more))
        fail("'" + words[0] + "' with " + std::to_string(found) + " words, expected " +
             std::to_string(n));
      return words;
    }
    ++number;
    fail("the file ends here" + (keyword.empty() ? "" : ", and '" + keyword + "' is missing") +
         "; it is damaged: export it again");
  }

  double real(const std::string &word)
  {
    char *end;
    const double value = std::strtod(word.c_str(), &end);
    if (*end || !std::isfinite(value)) fail("'" + word + "' is no number");
    return value;
  }

  int whole(const std::string &word)
  {
    const double value = real(word);
    if (value < 0 || value > 1e6 || value != std::floor(value))
      fail("'" + word + "' is no number to count with");
    return static_cast<int>(value);
  }

  template <class Names> std::string one_of(const std::string &word, const Names &names)
  {
    std::string known;
    for (const auto &name : names) {
      if (word == name) return word;
      known += std::string(" ") + name;
    }
    fail("'" + word + "' is not known; there are" + known);
  }

  [[noreturn]] void fail(const std::string &what) const
  {
    throw std::runtime_error(file + ", line " + std::to_string(number) + ": " + what);
  }

 private:
  std::string file;
  std::istringstream text;
  int number = 0;
};

int place_of(Lines &lines, const std::vector<std::string> &symbols, const std::string &symbol)
{
  const auto found = std::find(symbols.begin(), symbols.end(), symbol);
  if (found == symbols.end()) lines.fail("'" + symbol + "' is not among the elements of the file");
  return static_cast<int>(found - symbols.begin());
}

// Return the sphere of a radius, made where it is not there.
Sphere &sphere_of(Element &element, Cutoff cutoff, double radius, std::size_t n_elements)
{
  for (auto &sphere : element.spheres)
    if (sphere.cutoff.radius == radius) return sphere;
  cutoff.inner *= radius;
  cutoff.radius = radius;
  element.spheres.push_back({cutoff, std::vector<std::vector<Radial>>(n_elements), {}, {}});
  return element.spheres.back();
}

void add_shape(Sphere &sphere, int a, int b, bool bounded, double eta, double shift, Shape shape)
{
  const bool whole = shape.zeta <= MOMENTS_DEGREE && shape.zeta == std::floor(shape.zeta);
  if (!bounded && whole) {
    auto &groups = sphere.moments;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](auto &g) { return g.eta == eta && g.shift == shift; });
    if (group == groups.end()) group = groups.insert(group, {eta, shift, 0, {}});
    group->shapes.push_back({a, b, shape});
    group->degree = std::max(group->degree, static_cast<int>(shape.zeta));
    return;
  }
  auto channel = std::find_if(sphere.channels.begin(), sphere.channels.end(), [&](auto &c) {
    return c.a == a && c.b == b && c.bounded == bounded;
  });
  if (channel == sphere.channels.end())
    channel = sphere.channels.insert(channel, {a, b, bounded, {}});
  channel->shifted |= shift != 0.0;
  auto &groups = channel->groups;
  auto group = std::find_if(groups.begin(), groups.end(),
                            [&](auto &g) { return g.eta == eta && g.shift == shift; });
  if (group == groups.end()) group = groups.insert(group, {eta, shift, {}, true});
  group->shapes.push_back(shape);
  group->short_polynomial &= shape.zeta <= MIX_DEGREE && shape.zeta == std::floor(shape.zeta);
}

// Read the line of a function: kind, neighbours, Rc, parameters, shift and factor of its scaling.
void read_function(Lines &lines, const std::vector<std::string> &symbols,
                   const std::vector<int> &numbers, const Cutoff &cutoff, Element &element,
                   int feature)
{
  const auto words = lines.next("", 4, true);
  std::string kind = words[0];
  const bool weighted = kind.size() == 3 && kind[2] == 'W';
  if (weighted) kind.pop_back();
  const bool angular = kind == "G4" || kind == "G5";
  if (!(kind == "G1" || kind == "G2" || kind == "G3" || angular) ||
      (weighted && (kind == "G1" || kind == "G3")))
    lines.fail("there is no function '" + words[0] + "'");
  const int n_neighbors = weighted ? 0 : angular ? 2 : 1;
  const int n_parameters = kind == "G1" ? 0 : kind == "G2" ? 2 : kind == "G3" ? 1 : 4;
  if (static_cast<int>(words.size()) != 1 + n_neighbors + 1 + n_parameters + 2)
    lines.fail("'" + words[0] + "' with " + std::to_string(words.size()) + " words, expected " +
               std::to_string(1 + n_neighbors + 1 + n_parameters + 2));
  std::vector<int> neighbors;
  for (int k = 0; k < n_neighbors; ++k) neighbors.push_back(place_of(lines, symbols, words[1 + k]));
  std::sort(neighbors.begin(), neighbors.end());
  std::vector<double> values;
  for (std::size_t k = 1 + n_neighbors; k < words.size(); ++k)
    values.push_back(lines.real(words[k]));
  if (values[0] <= 0.0) lines.fail("the cutoff must be above 0, got " + words[1 + n_neighbors]);
  element.factor.push_back(values.back());
  element.shift.push_back(values[values.size() - 2]);

  const int n_elements = static_cast<int>(symbols.size());
  Sphere &sphere = sphere_of(element, cutoff, values[0], n_elements);
  if (!angular) {
    const Radial radial{kind == "G3", kind == "G1" ? 0.0 : values[1], kind == "G2" ? values[2] : 0.0,
                        1.0, feature};
    for (int e = 0; e < n_elements; ++e) {
      if (!weighted && e != neighbors[0]) continue;
      sphere.radial[e].push_back(radial);
      if (weighted) sphere.radial[e].back().weight = numbers[e];
    }
    return;
  }
  const double eta = values[1], zeta = values[2], lambda = values[3], shift = values[4];
  if (zeta < 1.0) lines.fail("zeta must be at least 1, got " + words[3 + n_neighbors]);
  for (int a = 0; a < n_elements; ++a)
    for (int b = a; b < n_elements; ++b) {
      if (!weighted && (a != neighbors[0] || b != neighbors[1])) continue;
      const double weight = weighted ? static_cast<double>(numbers[a]) * numbers[b] : 1.0;
      add_shape(sphere, a, b, kind == "G4", eta, shift,
                {zeta, lambda, weight * std::pow(2.0, 1.0 - zeta), feature});
    }
}

Layer read_layer(Lines &lines, int n_in)
{
  const auto words = lines.next("layer", 4);
  Layer layer;
  layer.n_in = lines.whole(words[1]);
  layer.n_out = lines.whole(words[2]);
  layer.activation = lines.one_of(words[3], ACTIVATIONS);
  if (layer.n_in != n_in)
    lines.fail("a layer with " + words[1] + " inputs, where " + std::to_string(n_in) + " are given");
  layer.weights.resize(static_cast<std::size_t>(layer.n_in) * layer.n_out);
  for (int out = 0; out < layer.n_out; ++out) {
    const auto row = lines.next("", 1 + layer.n_in);
    layer.bias.push_back(lines.real(row[0]));
    for (int in = 0; in < layer.n_in; ++in) {
      layer.transposed.push_back(lines.real(row[1 + in]));
      layer.weights[static_cast<std::size_t>(in) * layer.n_out + out] = layer.transposed.back();
    }
  }
  return layer;
}

// Read a potential; std::runtime_error names file and line.
Potential read_potential(const std::string &file, const std::string &text)
{
  Lines lines(file, text);
  Potential potential;
  if (lines.next("amptorch_potential", 2)[1] != "1")
    lines.fail("this plugin reads version 1 of the file: export it with the AMPTorch that built the "
               "plugin");
  const auto header = lines.next("elements", 2, true);
  const std::vector<std::string> symbols(header.begin() + 1, header.end());
  const auto charges = lines.next("atomic_numbers", 1 + static_cast<int>(symbols.size()));
  std::vector<int> numbers;
  for (std::size_t e = 0; e < symbols.size(); ++e) numbers.push_back(lines.whole(charges[1 + e]));
  const auto words = lines.next("cutoff_function", 3);
  Cutoff cutoff;
  cutoff.name = lines.one_of(words[1], CUTOFFS);
  (cutoff.name == "polynomial" ? cutoff.gamma : cutoff.inner) = lines.real(words[2]);
  potential.scale = lines.real(lines.next("energy_scale", 2)[1]);
  potential.mean = lines.real(lines.next("mean_energy", 2)[1]);
  for (std::size_t e = 0; e < symbols.size(); ++e) {
    Element element;
    element.symbol = symbols[e];
    element.number = numbers[e];
    if (lines.next("element", 2)[1] != symbols[e])
      lines.fail("expected element " + symbols[e] + ", as in the first lines");
    element.energy = lines.real(lines.next("reference_energy", 2)[1]);
    const int n_functions = lines.whole(lines.next("functions", 2)[1]);
    for (int feature = 0; feature < n_functions; ++feature)
      read_function(lines, symbols, numbers, cutoff, element, feature);
    const int n_layers = lines.whole(lines.next("layers", 2)[1]);
    for (int k = 0, width = n_functions; k < n_layers; ++k) {
      element.layers.push_back(read_layer(lines, width));
      width = element.layers.back().n_out;
    }
    if (element.layers.empty() || element.layers.back().n_out != 1)
      lines.fail("the network of " + symbols[e] + " must have one output");
    for (const auto &sphere : element.spheres)
      potential.cutoff = std::max(potential.cutoff, sphere.cutoff.radius);
    potential.elements.push_back(std::move(element));
  }
  lines.next("end", 1);
  return potential;
}

// ---------------------------------------------------------------------------------------------
// One atom
// ---------------------------------------------------------------------------------------------

// Number of monomials x^a y^b z^c of at most this degree.
constexpr int monomials_up_to(int degree) { return (degree + 1) * (degree + 2) * (degree + 3) / 6; }

// Monomials by their degree, and in one degree by falling a, then b.
struct Monomials {
  static constexpr int N = monomials_up_to(MOMENTS_DEGREE);
  std::array<std::array<int, 3>, N> exponent;
  std::array<std::array<int, 3>, N> lower;    // the place of its derivative along each axis
  std::array<int, N> before, axis, degree;    // it is the one before times a component
  std::array<double, N> weight;               // (a+b+c)!/(a! b! c!)

  Monomials()
  {
    int k = 0;
    for (int m = 0; m <= MOMENTS_DEGREE; ++m)
      for (int a = m; a >= 0; --a)
        for (int b = m - a; b >= 0; --b, ++k) {
          exponent[k] = {a, b, m - a - b};
          degree[k] = m;
          weight[k] = std::tgamma(m + 1.0) /
              (std::tgamma(a + 1.0) * std::tgamma(b + 1.0) * std::tgamma(m - a - b + 1.0));
          weight[k] = std::round(weight[k]);
          before[k] = axis[k] = 0;
          for (int d = 0; d < 3; ++d) {
            lower[k][d] = 0;
            if (!exponent[k][d]) continue;
            auto less = exponent[k];
            --less[d];
            lower[k][d] = before[k] = static_cast<int>(
                std::find(exponent.begin(), exponent.begin() + k, less) - exponent.begin());
            axis[k] = d;
          }
        }
  }
};

const Monomials MONOMIALS;

// What stands around an atom, one after the other.
struct Surroundings {
  std::vector<int> atom, element;
  Row x, y, z;    // Å, from the central atom
  int n = 0;

  void make_room(int most)
  {
    for (auto *row : {&x, &y, &z}) reserve(*row, most);
    for (auto *row : {&atom, &element}) reserve(*row, most);
  }
};

// Neighbours within one cutoff, element after element, each beginning at a multiple of LANES.
// What fills up the lanes is far away, and its fc is 0.
struct Near {
  std::vector<int> start, count;    // by element
  std::vector<int> source;          // place in the Surroundings, -1 of what fills up
  Row x, y, z, square, r, inverse_r;
  Row fc, fc_slope;     // fc, dfc/d(r²)
  Row radial;           // the exponential of each radial function of each neighbour
  Row monomials;        // of the directions r̂_j, a row of all neighbours for each
  std::vector<Row> envelope;    // of each group of moments, u_j = exp[−η (r_j − Rs)²] fc
  std::vector<Row> moments;     // of each group, by element and monomial
  Fours vectors;        // x, y, z, 0
  Fours gradients;      // what adds up to ∂E/∂r_j, beside what is along r_j:
  Fours shares;         // Σ T, Σ [2 dT/ds + 2 ∂T/∂(r_j²) of Gaussians], Σ c dT/dc
  Row along;            // and the factor of r_j of everything else
  int n = 0;
};

// Pairs (j, k) of neighbours in a channel, k after k.
struct Pairs {
  std::vector<int> j;
  std::vector<int> row;         // where the pairs of each k begin
  Row cosine, inverse_rr;       // cosθ, 1/(r_j r_k)
  Row square_jk;                // r_jk²
  Row squares;                  // r_j² + r_k², and r_jk² where the functions have it
  Row lengths;                  // r_j + r_k, and r_jk likewise, where a function is shifted
  Row value, slope;             // the product of the cutoff functions, and its d/d(r_jk²)
  std::vector<Row> gaussian;    // of each group
  int n = 0;
};

// Energy of an atom and its gradient. It holds nothing but scratch between calls.
class Evaluator {
 public:
  // ∂E/∂r_j of everything in the surroundings, eV/Å; `energy`, eV, is without `Potential::mean`.
  std::vector<double> gradient_x, gradient_y, gradient_z;

  double evaluate(const Potential &potential, int element, const Surroundings &around)
  {
    const Element &own = potential.elements[element];
    const std::size_t n_spheres = own.spheres.size();
    if (near.size() < n_spheres) near.resize(n_spheres);
    if (pairs.size() < n_spheres) pairs.resize(n_spheres);
    values.assign(own.shift.size(), 0.0);
    for (std::size_t s = 0; s < n_spheres; ++s) {
      const Sphere &sphere = own.spheres[s];
      gather(sphere.cutoff, around, static_cast<int>(potential.elements.size()), near[s]);
      radial_values(sphere, near[s]);
      moment_values(sphere, near[s]);
      if (pairs[s].size() < sphere.channels.size()) pairs[s].resize(sphere.channels.size());
      for (std::size_t c = 0; c < sphere.channels.size(); ++c) {
        find_pairs(sphere, sphere.channels[c], near[s], pairs[s][c]);
        angular_values(sphere.channels[c], pairs[s][c]);
      }
    }
    const double energy = potential.scale * network(own, potential.scale) + own.energy;
    for (auto *part : {&gradient_x, &gradient_y, &gradient_z})
      part->assign(around.n, 0.0);
    for (std::size_t s = 0; s < n_spheres; ++s) {
      const Sphere &sphere = own.spheres[s];
      radial_gradients(sphere, near[s]);
      moment_gradients(sphere, near[s]);
      for (std::size_t c = 0; c < sphere.channels.size(); ++c)
        angular_gradients(sphere.channels[c], near[s], pairs[s][c]);
      hand_out(near[s]);
    }
    return energy;
  }

 private:
  std::vector<Near> near;
  std::vector<std::vector<Pairs>> pairs;
  Row values;       // G, and then ∂E/∂G
  Row square_jk, dot_jk, inverse_rr, fc_jk;
  std::vector<int> picked;
  Fours terms;
  Row mixed, mixed_slope, sum, sum_slope, widened, shifted;
  std::vector<Row> slopes;

  void gather(const Cutoff &cutoff, const Surroundings &around, int n_elements, Near &to);
  void radial_values(const Sphere &sphere, Near &at);
  void moment_values(const Sphere &sphere, Near &at);
  void find_pairs(const Sphere &sphere, const Channel &channel, const Near &at, Pairs &to);
  void angular_values(const Channel &channel, Pairs &of);
  double network(const Element &element, double scale);
  void radial_gradients(const Sphere &sphere, Near &at);
  void moment_gradients(const Sphere &sphere, Near &at);
  void angular_gradients(const Channel &channel, Near &at, const Pairs &of);
  void mix(const Group &group, const Pairs &of, const double *gaussian);
  void hand_out(const Near &from);
};

void Evaluator::gather(const Cutoff &cutoff, const Surroundings &around, int n_elements, Near &to)
{
  const double cutoff2 = cutoff.radius * cutoff.radius;
  const int n = around.n;
  to.start.assign(n_elements + 1, 0);
  to.count.assign(n_elements, 0);
  reserve(square_jk, n);
  for (int p = 0; p < n; ++p)
    square_jk[p] = around.x[p] * around.x[p] + around.y[p] * around.y[p] + around.z[p] * around.z[p];
  for (int p = 0; p < n; ++p) to.count[around.element[p]] += square_jk[p] < cutoff2;
  for (int e = 0; e < n_elements; ++e) to.start[e + 1] = to.start[e] + whole_lanes(to.count[e]);
  to.n = to.start[n_elements];
  for (auto *row : {&to.x, &to.y, &to.z, &to.square, &to.r, &to.inverse_r, &to.fc, &to.fc_slope})
    reserve(*row, to.n);
  to.source.assign(to.n, -1);
  std::vector<int> &next = picked;
  next.assign(to.start.begin(), to.start.end() - 1);
  for (int p = 0; p < n; ++p) {
    if (square_jk[p] >= cutoff2) continue;
    const int q = next[around.element[p]]++;
    to.source[q] = p;
    to.x[q] = around.x[p];
    to.y[q] = around.y[p];
    to.z[q] = around.z[p];
  }
  for (int e = 0; e < n_elements; ++e)
    for (int q = next[e]; q < to.start[e + 1]; ++q) {
      to.x[q] = 1e3 * cutoff.radius;
      to.y[q] = to.z[q] = 0.0;
    }
  for (auto *row : {&to.gradients, &to.shares}) row->assign(to.n, Four{});
  to.along.assign(to.n, 0.0);
  reserve(to.vectors, to.n);
  for (int q = 0; q < to.n; ++q) {
    to.square[q] = to.x[q] * to.x[q] + to.y[q] * to.y[q] + to.z[q] * to.z[q];
    to.r[q] = std::sqrt(to.square[q]);
    to.inverse_r[q] = 1.0 / to.r[q];
    to.vectors[q] = Four{to.x[q], to.y[q], to.z[q], 0.0};
  }
  cutoff.evaluate(to.square.data(), to.n, to.fc.data(), to.fc_slope.data());
}

void Evaluator::radial_values(const Sphere &sphere, Near &at)
{
  int room = 0;
  for (std::size_t e = 0; e < sphere.radial.size(); ++e)
    room += static_cast<int>(sphere.radial[e].size()) * (at.start[e + 1] - at.start[e]);
  reserve(at.radial, room);
  double *terms = at.radial.data();
  for (std::size_t e = 0; e < sphere.radial.size(); ++e) {
    const int start = at.start[e], n = at.start[e + 1] - start;
    const double *r = &at.r[start], *fc = &at.fc[start];
    for (const Radial &f : sphere.radial[e]) {
      const double eta = f.eta, shift = f.shift, weight = f.weight;
      double total = 0.0;
      if (f.wave) {
        for (int q = 0; q < n; ++q) total += fc[q] * (terms[q] = weight * std::cos(eta * r[q]));
      } else {
#pragma omp simd reduction(+ : total)
        for (int q = 0; q < n; ++q) {
          const double d = r[q] - shift, e = weight * exponential(-eta * d * d);
          terms[q] = e;
          total += fc[q] * e;
        }
      }
      values[f.feature] += total;
      terms += n;
    }
  }
}

// With g = ∂E/∂G: add g dG/dr_j / r_j, what r_j is multiplied by.
void Evaluator::radial_gradients(const Sphere &sphere, Near &at)
{
  const double *terms = at.radial.data();
  for (std::size_t e = 0; e < sphere.radial.size(); ++e) {
    const int start = at.start[e], n = at.start[e + 1] - start;
    const double *r = &at.r[start], *fc = &at.fc[start], *fc_slope = &at.fc_slope[start];
    const double *inverse_r = &at.inverse_r[start];
    double *along = &at.along[start];
    for (const Radial &f : sphere.radial[e]) {
      const double eta = f.eta, shift = f.shift, g = values[f.feature];
      if (f.wave) {
        for (int q = 0; q < n; ++q)
          along[q] += g * (2.0 * fc_slope[q] * terms[q] -
                           f.weight * eta * std::sin(eta * r[q]) * fc[q] * inverse_r[q]);
      } else {
#pragma omp simd
        for (int q = 0; q < n; ++q)
          along[q] += 2.0 * g * terms[q] *
              (fc_slope[q] - eta * (r[q] - shift) * inverse_r[q] * fc[q]);
      }
      terms += n;
    }
  }
}

// Call f(k, C(ζ, m) λ^m (a+b+c)!/(a! b! c!)) for every monomial k of (1 + λ r̂_j·r̂_k)^ζ.
template <class F> void each_monomial(const Shape &shape, F f)
{
  double binomial = 1.0;
  const int zeta = static_cast<int>(shape.zeta);
  for (int m = 0, k = 0; m <= zeta; ++m) {
    for (; k < monomials_up_to(m); ++k) f(k, binomial * MONOMIALS.weight[k]);
    binomial *= shape.lambda * (zeta - m) / (m + 1.0);
  }
}

void Evaluator::moment_values(const Sphere &sphere, Near &at)
{
  if (sphere.moments.empty()) return;
  const int n = at.n, n_elements = static_cast<int>(at.count.size());
  int degree = 0;
  for (const MomentGroup &group : sphere.moments) degree = std::max(degree, group.degree);
  reserve(at.monomials, monomials_up_to(degree) * n);
  std::fill(at.monomials.begin(), at.monomials.begin() + n, 1.0);
  const double *component[] = {at.x.data(), at.y.data(), at.z.data()};
  const double *inverse_r = at.inverse_r.data();
  for (int k = 1; k < monomials_up_to(degree); ++k) {
    double *to = &at.monomials[k * n];
    const double *from = &at.monomials[MONOMIALS.before[k] * n], *x = component[MONOMIALS.axis[k]];
#pragma omp simd
    for (int q = 0; q < n; ++q) to[q] = from[q] * (x[q] * inverse_r[q]);
  }
  if (at.envelope.size() < sphere.moments.size()) at.envelope.resize(sphere.moments.size());
  if (at.moments.size() < sphere.moments.size()) at.moments.resize(sphere.moments.size());
  for (std::size_t g = 0; g < sphere.moments.size(); ++g) {
    const MomentGroup &group = sphere.moments[g];
    const double eta = group.eta, shift = group.shift;
    reserve(at.envelope[g], n);
    at.moments[g].assign(n_elements * Monomials::N, 0.0);
    double *u = at.envelope[g].data();
    const double *r = at.r.data(), *fc = at.fc.data();
#pragma omp simd
    for (int q = 0; q < n; ++q)
      u[q] = fc[q] * exponential(-eta * (r[q] - shift) * (r[q] - shift));
    for (int e = 0; e < n_elements; ++e)
      for (int k = 0; k < monomials_up_to(group.degree); ++k) {
        const double *monomial = &at.monomials[k * n];
        double total = 0.0;
#pragma omp simd reduction(+ : total)
        for (int q = at.start[e]; q < at.start[e + 1]; ++q) total += u[q] * monomial[q];
        at.moments[g][e * Monomials::N + k] = total;
      }
    for (const MomentShape &f : group.shapes) {
      const double *a = &at.moments[g][f.a * Monomials::N], *b = &at.moments[g][f.b * Monomials::N];
      double total = 0.0;
      each_monomial(f.shape, [&](int k, double c) { total += c * a[k] * b[k]; });
      if (f.a == f.b) {
        // The sum is over ordered pairs, and j = k is among them.
        double squares = 0.0;
        for (int q = at.start[f.a]; q < at.start[f.a + 1]; ++q) squares += u[q] * u[q];
        total = 0.5 * (total - squares * std::pow(1.0 + f.shape.lambda, f.shape.zeta));
      }
      values[f.shape.feature] += f.shape.scale * total;
    }
  }
}

// What is multiplied by u_j is a polynomial h of r̂_j, and with ∇ that of h as a polynomial
//
//     ∂[u h]/∂r_j = 2 du/d(r²) h r_j + (u/r) [∇h − (r̂·∇h) r̂].
void Evaluator::moment_gradients(const Sphere &sphere, Near &at)
{
  const int n = at.n, n_elements = static_cast<int>(at.count.size());
  for (std::size_t g = 0; g < sphere.moments.size(); ++g) {
    const MomentGroup &group = sphere.moments[g];
    const double eta = group.eta, shift = group.shift;
    const double *u = at.envelope[g].data();
    for (int e = 0; e < n_elements; ++e) {
      std::array<double, Monomials::N> h{};
      double same = 0.0;    // what j = k has in h, in units of u_j
      for (const MomentShape &f : group.shapes) {
        const double weight = values[f.shape.feature] * f.shape.scale;
        const auto add = [&](int other) {
          const double *moment = &at.moments[g][other * Monomials::N];
          each_monomial(f.shape, [&](int k, double c) { h[k] += weight * c * moment[k]; });
        };
        if (f.a == e) add(f.b);
        if (f.b == e && f.a != e) add(f.a);
        if (f.a == e && f.b == e)
          same += weight * std::pow(1.0 + f.shape.lambda, f.shape.zeta);
      }
      const int start = at.start[e], m = at.start[e + 1] - start;
      std::array<Row *, 5> sums{&mixed, &mixed_slope, &sum, &sum_slope, &widened};
      for (Row *row : sums) {
        reserve(*row, m);
        std::fill(row->begin(), row->begin() + m, 0.0);
      }
      double *value = mixed.data(), *radial = mixed_slope.data();
      double *hx = sum.data(), *hy = sum_slope.data(), *hz = widened.data();
      for (int k = 0; k < monomials_up_to(group.degree); ++k) {
        const double c = h[k], along = c * MONOMIALS.degree[k];
        const auto &exponent = MONOMIALS.exponent[k], &lower = MONOMIALS.lower[k];
        const double cx = c * exponent[0], cy = c * exponent[1], cz = c * exponent[2];
        const double *all = &at.monomials[start], *own = all + k * n;
        const double *x = all + lower[0] * n, *y = all + lower[1] * n, *z = all + lower[2] * n;
#pragma omp simd
        for (int q = 0; q < m; ++q) {
          value[q] += c * own[q];
          radial[q] += along * own[q];
          hx[q] += cx * x[q];
          hy[q] += cy * y[q];
          hz[q] += cz * z[q];
        }
      }
      for (int q = 0; q < at.count[e]; ++q) {
        const int j = start + q;
        const double inverse = at.inverse_r[j], across = u[j] * inverse;
        const double gaussian = exponential(-eta * (at.r[j] - shift) * (at.r[j] - shift));
        const double slope =
            gaussian * at.fc_slope[j] - eta * (at.r[j] - shift) * inverse * u[j];
        at.gradients[j] += Four{across * hx[q], across * hy[q], across * hz[q], 0.0};
        at.along[j] += 2.0 * slope * (value[q] - same * u[j]) - across * inverse * radial[q];
      }
    }
  }
}

// Copy those of n numbers in four rows whose first is below `limit`, and their places; return how
// many there are. `to_place` and `to` have room for LANES more.
int pick(int n, double limit, const std::array<const double *, 4> &from, int first, int *to_place,
         const std::array<double *, 4> &to)
{
  int found = 0;
#ifdef __AVX512F__
  // By the instruction for it: three times as fast.
  const __m512d bound = _mm512_set1_pd(limit);
  __m512i place = _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
  for (int j = 0; j < n; j += LANES) {
    __mmask8 mask = _mm512_cmp_pd_mask(_mm512_load_pd(from[0] + j), bound, _CMP_LT_OQ);
    if (n - j < LANES) mask &= (1 << (n - j)) - 1;
    for (int row = 0; row < 4; ++row)
      _mm512_storeu_pd(to[row] + found,
                       _mm512_maskz_compress_pd(mask, _mm512_load_pd(from[row] + j)));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to_place + found),
                        _mm512_cvtepi64_epi32(_mm512_maskz_compress_epi64(mask, place)));
    place = _mm512_add_epi64(place, _mm512_set1_epi64(LANES));
    found += __builtin_popcount(mask);
  }
#else
  for (int j = 0; j < n; ++j) {
    to_place[found] = j;
    found += from[0][j] < limit;
  }
  for (int t = 0; t < found; ++t) {
    const int j = to_place[t];
    for (int row = 0; row < 4; ++row) to[row][t] = from[row][j];
    to_place[t] = first + j;
  }
#endif
  return found;
}

// List the pairs of a channel; of bounded functions those within the cutoff alone, which are half.
void Evaluator::find_pairs(const Sphere &sphere, const Channel &channel, const Near &at, Pairs &to)
{
  const double cutoff2 = sphere.cutoff.radius * sphere.cutoff.radius;
  const double farthest = channel.bounded ? cutoff2 : HUGE_VAL;
  const int start_a = at.start[channel.a], n_a = at.count[channel.a];
  const int start_b = at.start[channel.b], n_b = at.count[channel.b];
  const double *x = &at.x[start_a], *y = &at.y[start_a], *z = &at.z[start_a];
  const double *square = &at.square[start_a], *inverse_r = &at.inverse_r[start_a];
  const double *fc = &at.fc[start_a], *r = &at.r[start_a];
  const int most = n_a * n_b + LANES;
  for (auto *row : {&to.cosine, &to.inverse_rr, &to.square_jk, &to.squares, &to.lengths, &to.value,
                    &to.slope})
    reserve(*row, most);
  reserve(to.j, most);
  for (auto *row : {&square_jk, &dot_jk, &inverse_rr, &fc_jk}) reserve(*row, whole_lanes(n_a));
  double *s = square_jk.data(), *dot = dot_jk.data(), *rr = inverse_rr.data(), *f = fc_jk.data();
  to.row.assign(1, 0);
  to.n = 0;
  for (int k = 0; k < n_b; ++k) {
    const int m = channel.a == channel.b ? k : n_a, q = start_b + k;
    const double xk = at.x[q], yk = at.y[q], zk = at.z[q], square_k = at.square[q];
    const double inverse_k = at.inverse_r[q], fc_k = at.fc[q];
    const int lanes = whole_lanes(m);
#pragma omp simd
    for (int j = 0; j < lanes; ++j) {
      dot[j] = x[j] * xk + y[j] * yk + z[j] * zk;
      s[j] = square[j] + square_k - 2.0 * dot[j];
      rr[j] = inverse_r[j] * inverse_k;
      f[j] = fc[j] * fc_k;
    }
    const int n = to.n;
    to.n += pick(m, farthest, {s, dot, rr, f}, start_a, &to.j[n],
                 {&to.square_jk[n], &to.cosine[n], &to.inverse_rr[n], &to.value[n]});
    to.row.push_back(to.n);
    if (channel.shifted)
      for (int t = n; t < to.n; ++t)
        to.lengths[t] = r[to.j[t] - start_a] + at.r[q] +
            (channel.bounded ? std::sqrt(to.square_jk[t]) : 0.0);
  }
  const int n = to.n;
  // r_j² + r_k² = r_jk² + 2 r_j·r_k; so far the dot product is in the place of the cosine.
  const double once_more = channel.bounded ? 2.0 : 1.0;
  double *c = to.cosine.data(), *squares = to.squares.data(), *value = to.value.data();
  double *slope = to.slope.data();
  const double *square_jk = to.square_jk.data(), *inverse_rr = to.inverse_rr.data();
#pragma omp simd
  for (int t = 0; t < n; ++t) {
    squares[t] = once_more * square_jk[t] + 2.0 * c[t];
    c[t] *= inverse_rr[t];
  }
  if (!channel.bounded) {
    std::fill(slope, slope + n, 0.0);
    return;
  }
  reserve(mixed, n);
  sphere.cutoff.evaluate(square_jk, n, mixed.data(), slope);
  const double *fc_of_pair = mixed.data();
#pragma omp simd
  for (int t = 0; t < n; ++t) {
    slope[t] *= value[t];
    value[t] *= fc_of_pair[t];
  }
}

void Evaluator::angular_values(const Channel &channel, Pairs &of)
{
  if (of.gaussian.size() < channel.groups.size()) of.gaussian.resize(channel.groups.size());
  const int n = of.n;
  const double *c = of.cosine.data(), *f = of.value.data(), *squares = of.squares.data();
  for (std::size_t g = 0; g < channel.groups.size(); ++g) {
    const Group &group = channel.groups[g];
    reserve(of.gaussian[g], n);
    double *e = of.gaussian[g].data();
    const double eta = group.eta;
    if (group.shift == 0.0) {
#pragma omp simd
      for (int t = 0; t < n; ++t) e[t] = exponential(-eta * squares[t]);
    } else {
      // Σ (r − Rs)² over the distances, which are two or three.
      const double shift = group.shift, rest = (channel.bounded ? 3.0 : 2.0) * shift * shift;
      for (int t = 0; t < n; ++t)
        e[t] = exponential(-eta * (squares[t] - 2.0 * shift * of.lengths[t] + rest));
    }
    for (const Shape &shape : group.shapes) {
      const double lambda = shape.lambda;
      double total = 0.0;
      with_power(shape.zeta, [&](auto power) {
#pragma omp simd reduction(+ : total)
        for (int t = 0; t < n; ++t) total += power(1.0 + lambda * c[t]) * (f[t] * e[t]);
      });
      values[shape.feature] += shape.scale * total;
    }
  }
}

// Return the output of the network, and replace G in `values` by ∂E/∂G.
double Evaluator::network(const Element &element, double scale)
{
  const int n_layers = static_cast<int>(element.layers.size());
  if (static_cast<int>(slopes.size()) < n_layers) slopes.resize(n_layers);
  Row &x = mixed, &y = mixed_slope;
  int n = static_cast<int>(element.shift.size());
  reserve(x, n);
  for (int k = 0; k < n; ++k) x[k] = (values[k] - element.shift[k]) * element.factor[k];
  for (int l = 0; l < n_layers; ++l) {
    const Layer &layer = element.layers[l];
    n = layer.n_out;
    reserve(y, n);
    reserve(slopes[l], n);
    double *out = y.data();
    for (int o = 0; o < n; ++o) out[o] = layer.bias[o];
    for (int i = 0; i < layer.n_in; ++i) {
      const double input = x[i], *w = &layer.weights[static_cast<std::size_t>(i) * n];
      for (int o = 0; o < n; ++o) out[o] += input * w[o];
    }
    activate(layer.activation, out, slopes[l].data(), n);
    std::swap(x, y);
  }
  const double output = x[0];
  x[0] = scale;
  for (int l = n_layers - 1; l >= 0; --l) {
    const Layer &layer = element.layers[l];
    n = layer.n_in;
    reserve(y, n);
    double *in = y.data();
    for (int i = 0; i < n; ++i) in[i] = 0.0;
    for (int o = 0; o < layer.n_out; ++o) {
      const double g = x[o] * slopes[l][o];
      const double *w = &layer.transposed[static_cast<std::size_t>(o) * n];
      for (int i = 0; i < n; ++i) in[i] += g * w[i];
    }
    std::swap(x, y);
  }
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = x[k] * element.factor[k];
  return output;
}

// Compute P = Σ g 2^(1−ζ) (1 + λc)^ζ of a group, times its Gaussian, and dP/dc.
void Evaluator::mix(const Group &group, const Pairs &of, const double *gaussian)
{
  const int n = of.n;
  const double *c = of.cosine.data();
  double *p = mixed.data(), *slope = mixed_slope.data();
  if (group.short_polynomial) {
    // (1 + λc)^ζ = Σ_m C(ζ, m) λ^m c^m
    std::array<double, MIX_DEGREE + 1> a{};
    for (const Shape &shape : group.shapes) {
      double term = values[shape.feature] * shape.scale;
      for (int m = 0; m <= static_cast<int>(shape.zeta); ++m) {
        a[m] += term;
        term *= shape.lambda * (shape.zeta - m) / (m + 1);
      }
    }
#pragma omp simd
    for (int t = 0; t < n; ++t) {
      double value = a[MIX_DEGREE], derivative = 0.0;
      for (int m = MIX_DEGREE - 1; m >= 0; --m) {
        derivative = derivative * c[t] + value;
        value = value * c[t] + a[m];
      }
      p[t] = value * gaussian[t];
      slope[t] = derivative * gaussian[t];
    }
    return;
  }
  std::fill(p, p + n, 0.0);
  std::fill(slope, slope + n, 0.0);
  for (const Shape &shape : group.shapes) {
    const double lambda = shape.lambda, steep = shape.zeta * lambda;
    const double weight = values[shape.feature] * shape.scale;
    with_power(shape.zeta - 1.0, [&](auto power) {
      for (int t = 0; t < n; ++t) {
        const double b = 1.0 + lambda * c[t], lower = weight * power(b) * gaussian[t];
        p[t] += lower * b;
        slope[t] += steep * lower;
      }
    });
  }
}

// A pair has T = P u_j u_k w, and with c = cosθ the gradient ∂T/∂r_j = α_j r_j + β r_k:
//
//     β   = (dT/dc)/(r_j r_k) − 2 dT/ds
//     α_j = 2 dT/d(r_j²) + 2 dT/ds − (dT/dc) c/r_j²
//
// u and w are Gaussians and cutoff functions. Groups differ in P and the Gaussians alone, so that
// Σ P, Σ dP/dc, Σ η P and Σ η Rs P over the groups are all that is needed of them.
void Evaluator::angular_gradients(const Channel &channel, Near &at, const Pairs &of)
{
  const int n = of.n;
  for (auto *row : {&mixed, &mixed_slope, &sum, &sum_slope, &widened, &shifted}) reserve(*row, n);
  reserve(terms, n);
  for (auto *row : {&sum, &sum_slope, &widened, &shifted})
    std::fill(row->begin(), row->begin() + n, 0.0);
  double *p = sum.data(), *turn = sum_slope.data(), *wide = widened.data(), *far = shifted.data();
  for (std::size_t g = 0; g < channel.groups.size(); ++g) {
    const Group &group = channel.groups[g];
    const double eta = group.eta, eta_shift = group.eta * group.shift;
    mix(group, of, of.gaussian[g].data());
    const double *own = mixed.data(), *own_slope = mixed_slope.data();
#pragma omp simd
    for (int t = 0; t < n; ++t) {
      p[t] += own[t];
      turn[t] += own_slope[t];
      wide[t] += eta * own[t];
    }
    if (eta_shift != 0.0)
      for (int t = 0; t < n; ++t) far[t] += eta_shift * own[t];
  }
  const double twice = channel.bounded ? 2.0 : 0.0;
  const double *f = of.value.data(), *slope = of.slope.data(), *c = of.cosine.data();
  const double *inverse_rr = of.inverse_rr.data();
  double *all = reinterpret_cast<double *>(terms.data());
#pragma omp simd
  for (int t = 0; t < n; ++t) {
    const double in_s = 2.0 * slope[t] * p[t] - twice * f[t] * wide[t], in_c = f[t] * turn[t];
    all[4 * t] = f[t] * p[t];
    all[4 * t + 1] = in_s - 2.0 * f[t] * wide[t];
    all[4 * t + 2] = in_c * c[t];
    all[4 * t + 3] = in_c * inverse_rr[t] - in_s;
  }
  if (channel.shifted)
    for (int t = 0; t < n; ++t) {
      far[t] *= 2.0 * f[t];
      const double in_s = channel.bounded ? far[t] / std::sqrt(of.square_jk[t]) : 0.0;
      all[4 * t + 1] += in_s;
      all[4 * t + 3] -= in_s;
    }
  for (int k = 0; k + 1 < static_cast<int>(of.row.size()); ++k) {
    const int q = at.start[channel.b] + k, stop = of.row[k + 1];
    const Four rk = at.vectors[q];
    Four pull{}, shares{};
    for (int t = of.row[k]; t < stop; ++t) {
      const int j = of.j[t];
      const Four term = terms[t], beta = Four{} + term[3];
      at.gradients[j] += beta * rk;
      at.shares[j] += term;
      pull += beta * at.vectors[j];
      shares += term;
    }
    at.gradients[q] += pull;
    at.shares[q] += shares;
    if (channel.shifted)
      for (int t = of.row[k]; t < stop; ++t) {
        at.along[of.j[t]] += far[t] * at.inverse_r[of.j[t]];
        at.along[q] += far[t] * at.inverse_r[q];
      }
  }
}

// Add the gradients to those of the surroundings.
void Evaluator::hand_out(const Near &from)
{
  for (int q = 0; q < from.n; ++q) {
    const int p = from.source[q];
    if (p < 0) continue;
    const Four g = from.gradients[q], shares = from.shares[q];
    const double fc = from.fc[q], inverse = from.inverse_r[q];
    const double log_slope = fc > 0.0 ? 2.0 * from.fc_slope[q] / fc : 0.0;
    const double along = from.along[q] + shares[0] * log_slope + shares[1] -
        shares[2] * inverse * inverse;
    gradient_x[p] += g[0] + along * from.x[q];
    gradient_y[p] += g[1] + along * from.y[q];
    gradient_z[p] += g[2] + along * from.z[q];
  }
}

}    // namespace

// ---------------------------------------------------------------------------------------------
// The pair style
// ---------------------------------------------------------------------------------------------

namespace LAMMPS_NS {

class PairAmpTorch : public Pair {
 public:
  PairAmpTorch(LAMMPS *lmp) : Pair(lmp)
  {
    single_enable = 0;
    restartinfo = 0;
    one_coeff = 1;
    manybody_flag = 1;
    centroidstressflag = CENTROID_NOTAVAIL;
    // The virial is added up atom by atom, as the one of each atom is.
    no_virial_fdotr_compute = 1;
  }

  ~PairAmpTorch() override
  {
    if (copymode || !allocated) return;
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }

  void settings(int narg, char **) override
  {
    if (narg) error->all(FLERR, "pair_style amptorch takes no arguments: the file of the potential "
                                "is an argument of pair_coeff");
    // What one unit of energy and of length is, in eV and Å, by the constants of ASE.
    const std::string style = update->unit_style;
    if (style == "metal") {
      energy_unit = length_unit = 1.0;
    } else if (style == "real") {
      energy_unit = 0.04336410390059322;
      length_unit = 1.0;
    } else if (style == "electron") {
      energy_unit = 27.211386024367243;
      length_unit = 0.5291772105638411;
    } else {
      error->all(FLERR, "units {}: pair_style amptorch needs metal, real or electron", style);
    }
  }

  void coeff(int narg, char **arg) override
  {
    if (!allocated) allocate();
    if (narg < 3 || std::strcmp(arg[0], "*") || std::strcmp(arg[1], "*"))
      error->all(FLERR, "expected `pair_coeff * * FILE H O …`: the file of the potential, and the "
                        "element of each atom type");
    read(arg[2]);
    map_element2type(narg - 3, arg + 3);
    place.assign(atom->ntypes + 1, -1);
    for (int type = 1; type <= atom->ntypes; ++type) {
      if (map[type] < 0) continue;    // NULL: another pair style's
      std::string known;
      for (std::size_t e = 0; e < potential.elements.size(); ++e) {
        known += " " + potential.elements[e].symbol;
        if (potential.elements[e].symbol == elements[map[type]]) place[type] = static_cast<int>(e);
      }
      if (place[type] < 0)
        error->all(FLERR, "atom type {} is {}, and {} knows{}", type, elements[map[type]], arg[2],
                   known);
    }
  }

  void init_style() override
  {
    if (!force->newton_pair) error->all(FLERR, "pair_style amptorch needs `newton on`");
    if (atom->molecular != Atom::ATOMIC)
      for (int k = 1; k < 4; ++k)
        if (force->special_lj[k] == 0.0 || force->special_coul[k] == 0.0)
          error->all(FLERR, "pair_style amptorch needs all neighbours: give `special_bonds lj/coul "
                            "1 1 1`");
    neighbor->add_request(this, NeighConst::REQ_FULL);
  }

  double init_one(int i, int j) override
  {
    if (!setflag[i][j]) error->all(FLERR, "no `pair_coeff` for the atom types {} and {}", i, j);
    return potential.cutoff / length_unit;
  }

  void compute(int eflag, int vflag) override;

 private:
  Potential potential;
  std::vector<int> place;    // element of the potential of each atom type
  double energy_unit = 1.0, length_unit = 1.0;
  Evaluator evaluator;
  Surroundings around;

  void find_neighbors(int i);

  void allocate()
  {
    allocated = 1;
    const int n = atom->ntypes + 1;
    memory->create(setflag, n, n, "pair:setflag");
    memory->create(cutsq, n, n, "pair:cutsq");
    map = new int[n];
  }

  // The first process reads the file, and all have the same error.
  void read(const std::string &file)
  {
    std::string text;
    int size = -1;
    if (comm->me == 0) {
      std::ifstream stream(file);
      std::ostringstream whole;
      if (stream && whole << stream.rdbuf()) {
        text = whole.str();
        size = static_cast<int>(text.size());
      }
    }
    MPI_Bcast(&size, 1, MPI_INT, 0, world);
    if (size < 0)
      error->all(FLERR, "the file {} of pair_coeff cannot be read; expected `pair_coeff * * FILE H O "
                        "…`", file);
    text.resize(size);
    MPI_Bcast(&text[0], size, MPI_CHAR, 0, world);
    try {
      potential = read_potential(file, text);
    } catch (std::runtime_error &failed) {
      error->all(FLERR, std::string(failed.what()));
    }
  }
};

// Find what is within the largest cutoff around atom i.
void PairAmpTorch::find_neighbors(int i)
{
  const double *x = atom->x[0], *xi = &x[3 * i];
  const int *type = atom->type, *neighbors = list->firstneigh[i];
  const int most = list->numneigh[i];
  const double cutoff2 = potential.cutoff * potential.cutoff;
  double nearest = cutoff2;
  around.make_room(most + 1);
  int n = 0;
  for (int jj = 0; jj < most; ++jj) {
    const int j = neighbors[jj] & NEIGHMASK;
    const double dx = (x[3 * j] - xi[0]) * length_unit, dy = (x[3 * j + 1] - xi[1]) * length_unit,
                 dz = (x[3 * j + 2] - xi[2]) * length_unit;
    const double square = dx * dx + dy * dy + dz * dz;
    const int element = place[type[j]];
    around.atom[n] = j;
    around.element[n] = element;
    around.x[n] = dx;
    around.y[n] = dy;
    around.z[n] = dz;
    // A branch here would be foreseen wrongly too often.
    const bool near = square < cutoff2 && element >= 0;
    nearest = near ? std::min(nearest, square) : nearest;
    n += near;
  }
  around.n = n;
  if (nearest < 1e-8)
    for (int p = 0; p < n; ++p)
      if (around.x[p] * around.x[p] + around.y[p] * around.y[p] + around.z[p] * around.z[p] == nearest)
        error->one(FLERR, "the atoms {} and {} are in one place at step {}", atom->tag[i],
                   atom->tag[around.atom[p]], update->ntimestep);
}

void PairAmpTorch::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  double **f = atom->f;
  const int *type = atom->type;
  const double force_unit = length_unit / energy_unit;
  const double mean = potential.mean / static_cast<double>(atom->natoms);
  for (int ii = 0; ii < list->inum; ++ii) {
    const int i = list->ilist[ii];
    if (place[type[i]] < 0) continue;
    find_neighbors(i);
    const double energy =
        (evaluator.evaluate(potential, place[type[i]], around) + mean) / energy_unit;
    if (!std::isfinite(energy))
      error->one(FLERR, "the energy of atom {} is not a finite number at step {}: check the time "
                        "step and the structure", atom->tag[i], update->ntimestep);
    if (eflag_global) eng_vdwl += energy;
    if (eflag_atom) eatom[i] += energy;
    // −∂E/∂r_j pulls at the neighbour, its opposite at the central atom, which has their virial.
    double v[6] = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0}, sum[3] = {0.0, 0.0, 0.0};
    for (int p = 0; p < around.n; ++p) {
      const double gx = evaluator.gradient_x[p], gy = evaluator.gradient_y[p],
                   gz = evaluator.gradient_z[p];
      double *fj = f[around.atom[p]];
      fj[0] -= gx * force_unit;
      fj[1] -= gy * force_unit;
      fj[2] -= gz * force_unit;
      sum[0] += gx;
      sum[1] += gy;
      sum[2] += gz;
      v[0] -= around.x[p] * gx;
      v[1] -= around.y[p] * gy;
      v[2] -= around.z[p] * gz;
      v[3] -= 0.5 * (around.x[p] * gy + around.y[p] * gx);
      v[4] -= 0.5 * (around.x[p] * gz + around.z[p] * gx);
      v[5] -= 0.5 * (around.y[p] * gz + around.z[p] * gy);
    }
    for (int d = 0; d < 3; ++d) f[i][d] += sum[d] * force_unit;
    if (vflag_global)
      for (int d = 0; d < 6; ++d) virial[d] += v[d] / energy_unit;
    if (vflag_atom)
      for (int d = 0; d < 6; ++d) vatom[i][d] += v[d] / energy_unit;
  }
}

}    // namespace LAMMPS_NS

// ---------------------------------------------------------------------------------------------
// What `plugin load` looks for
// ---------------------------------------------------------------------------------------------

// As in LAMMPS's lammpsplugin.h, which packages of LAMMPS leave out.
struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  void *(*creator)(LAMMPS_NS::LAMMPS *);
  void *handle;
};

extern "C" {
// Weak: a LAMMPS that is one program need not have it.
__attribute__((weak)) int lammps_version(void *);

void lammpsplugin_init(void *lmp, void *handle, void *registration)
{
  const int running = lammps_version ? lammps_version(lmp) : AMPTORCH_LAMMPS_NUMBER;
  if (running != AMPTORCH_LAMMPS_NUMBER) {
    std::fprintf(stderr, "ERROR: amptorchplugin.so was compiled for LAMMPS %d, and this is %d: build "
                         "it with the headers of this LAMMPS\n", AMPTORCH_LAMMPS_NUMBER, running);
    return;
  }
  lammpsplugin_t plugin{AMPTORCH_LAMMPS_VERSION, "pair", "amptorch",
                        "potentials of AMPTorch", "the maintainers of the AMPTorch fork",
                        [](LAMMPS_NS::LAMMPS *lmp) -> void * {
                          return new LAMMPS_NS::PairAmpTorch(lmp);
                        },
                        handle};
  reinterpret_cast<void (*)(lammpsplugin_t *, void *)>(registration)(&plugin, lmp);
}
}
