// The nine rules, broken on purpose: each mutation is done to what the machines return or to what a driver does, never
// in the machines. The simulator must find each.
#pragma once

#include <string_view>
#include <vector>

#include "protocol/soa.h"
#include "protocol/som.h"

namespace sami::sim {

class World;
struct Settings;
class Agent;

enum class Mutation {
  None,
  ReleaseBeforeOutcome,  // the SOM releases on its own GO
  VoteNotJournaled,      // the SOM sends a vote that it did not write down
  RemoveAtFinalize,      // the source deletes when it has sent the final round
  ChangesForgotten,      // the source does not see what changed since the snapshot
  BarrierStays,          // nobody lowers it, and the kernel has no timeout
  NothingRemoved,        // the source says Released and deletes nothing
  RetainedIsMoved,       // COPY_AND_RETAIN is taken for MOVE
  CountersAddedInPlace,
  ForeignTaken,         // the destination does not look whose record it is
  RollbackTakesAll,     // rollback deletes what stood there before
  ConflictOverwritten,  // planned: the other one has to give way
  ConflictAdopted,      // planned: the other one is called the same
  EpochForgotten,       // the agent does not keep the highest epoch
  NoDeadlines,          // the SOM's clock stands still
  TwoWriters,           // the shell runs two calls of a class at once
};

struct MutationInfo {
  Mutation mutation;
  std::string_view name;
  int rule;
};
const std::vector<MutationInfo>& mutations();

// The faults without which the mutation would hardly ever show.
void provoke(Mutation mutation, Settings& settings);
void mutate(World& world, protocol::SomStep& step);
void mutate(World& world, Agent& agent, const protocol::SoaEvent& event, protocol::SoaStep& step);
protocol::DriverReply perform_mutated(World& world, Agent& agent, const protocol::DriverCall& call,
                                      state::Driver& driver);

}  // namespace sami::sim
