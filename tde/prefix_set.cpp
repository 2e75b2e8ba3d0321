#include "tde/prefix_set.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

namespace sami::tde {

// A binary tree over address bits. Kept canonical: no node has two full or two empty children.
struct PrefixSet::Node {
  Tree child[2];
};

namespace {

using Tree = PrefixSet::Tree;

const Tree& full() {
  static const Tree tree = std::make_shared<const PrefixSet::Node>();
  return tree;
}
const Tree nothing;

Tree join(Tree left, Tree right) {
  if (left == right && (left == nullptr || left == full())) return left;
  return std::make_shared<const PrefixSet::Node>(PrefixSet::Node{{std::move(left), std::move(right)}});
}
const Tree& below(const Tree& tree, int bit) { return tree == nullptr || tree == full() ? tree : tree->child[bit]; }

Tree unite(const Tree& a, const Tree& b) {
  if (a == nullptr || b == full()) return b;
  if (b == nullptr || a == full()) return a;
  return join(unite(a->child[0], b->child[0]), unite(a->child[1], b->child[1]));
}

Tree subtract(const Tree& a, const Tree& b) {
  if (a == nullptr || b == full()) return nothing;
  if (b == nullptr) return a;
  return join(subtract(below(a, 0), b->child[0]), subtract(below(a, 1), b->child[1]));
}

bool bit_of(std::string_view octets, std::uint32_t position) {
  return ((static_cast<unsigned char>(octets[position / 8]) >> (7 - position % 8)) & 1) != 0;
}

void flip_bit(std::string& octets, std::uint32_t position) {
  const unsigned flipped = static_cast<unsigned char>(octets[position / 8]) ^ (0x80U >> (position % 8));
  octets[position / 8] = static_cast<char>(static_cast<unsigned char>(flipped));
}

Tree chain(std::string_view octets, std::uint32_t length) {
  Tree tree = full();
  for (std::uint32_t position = length; position-- > 0;) {
    tree = bit_of(octets, position) ? join(nothing, tree) : join(tree, nothing);
  }
  return tree;
}

common::Prefix prefix_of(const std::string& octets, std::uint32_t length) {
  common::Prefix prefix;
  prefix.set_address(octets);
  prefix.set_length(length);
  return prefix;
}

// The largest prefixes that make up the tree (or, inverted, its complement).
void list(const Tree& tree, bool inverted, std::string& octets, std::uint32_t length, std::vector<common::Prefix>& to) {
  if (tree == nullptr || tree == full()) {
    if ((tree == nullptr) == inverted) to.push_back(prefix_of(octets, length));
    return;
  }
  list(tree->child[0], inverted, octets, length + 1, to);
  flip_bit(octets, length);
  list(tree->child[1], inverted, octets, length + 1, to);
  flip_bit(octets, length);
}

struct Lists {
  std::vector<common::Prefix> include, exclude;
  std::size_t cost() const { return include.size() + exclude.size(); }
};

// Either this whole prefix without its holes, or what is best for each half: the shorter of the two.
Lists shortest(const Tree& tree, std::string& octets, std::uint32_t length) {
  Lists whole;
  if (tree == nullptr) return whole;
  whole.include.push_back(prefix_of(octets, length));
  if (tree == full()) return whole;
  list(tree, true, octets, length, whole.exclude);

  Lists halves = shortest(tree->child[0], octets, length + 1);
  flip_bit(octets, length);
  Lists right = shortest(tree->child[1], octets, length + 1);
  flip_bit(octets, length);
  halves.include.insert(halves.include.end(), right.include.begin(), right.include.end());
  halves.exclude.insert(halves.exclude.end(), right.exclude.begin(), right.exclude.end());
  return whole.cost() < halves.cost() ? whole : halves;
}

}  // namespace

PrefixSet::PrefixSet(const common::Prefix& prefix) {
  (prefix.address().size() == 4 ? v4_ : v6_) = chain(prefix.address(), prefix.length());
}

bool PrefixSet::empty() const { return v4_ == nullptr && v6_ == nullptr; }

bool PrefixSet::contains(std::string_view address) const {
  Tree tree = address.size() == 4 ? v4_ : v6_;
  for (std::uint32_t position = 0; tree != nullptr && tree != full(); ++position) {
    tree = tree->child[bit_of(address, position) ? 1 : 0];
  }
  return tree != nullptr;
}

PrefixSet PrefixSet::operator|(const PrefixSet& other) const {
  PrefixSet result;
  result.v4_ = unite(v4_, other.v4_);
  result.v6_ = unite(v6_, other.v6_);
  return result;
}
PrefixSet PrefixSet::operator-(const PrefixSet& other) const {
  PrefixSet result;
  result.v4_ = subtract(v4_, other.v4_);
  result.v6_ = subtract(v6_, other.v6_);
  return result;
}
PrefixSet PrefixSet::operator&(const PrefixSet& other) const { return *this - (*this - other); }

common::PeerSelector PrefixSet::selector() const {
  common::PeerSelector selector;
  for (const auto& [tree, octets] : {std::pair(v4_, std::size_t{4}), std::pair(v6_, std::size_t{16})}) {
    std::string address(octets, '\0');
    const Lists lists = shortest(tree, address, 0);
    for (const auto& prefix : lists.include) *selector.add_include() = prefix;
    for (const auto& prefix : lists.exclude) *selector.add_exclude() = prefix;
  }
  return selector;
}

common::Prefix to_message(const AddressPrefix& prefix) { return prefix_of(prefix.address, prefix.length); }

std::string to_string(const common::Prefix& prefix) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const bool v6 = prefix.address().size() == 16;
  if (!v6 && prefix.address().size() != 4) return "invalid";
  inet_ntop(v6 ? AF_INET6 : AF_INET, prefix.address().data(), text.data(), text.size());
  return fmt::format("{}/{}", text.data(), prefix.length());
}

std::string to_string(const common::PeerSelector& selector) {
  std::vector<std::string> include, exclude;
  for (const auto& prefix : selector.include()) include.push_back(to_string(prefix));
  for (const auto& prefix : selector.exclude()) exclude.push_back(to_string(prefix));
  if (include.empty()) include.emplace_back("every peer");
  return fmt::format("{}{}{}", fmt::join(include, ", "), exclude.empty() ? "" : " except ", fmt::join(exclude, ", "));
}

}  // namespace sami::tde
