// One node of a simulated cluster: the production file system on a simulated disk handle, with a
// lock manager and a model of the kernel in front of it.

import CentralLocking
import ClusterNode
package import Execution
package import FileSystem
import NodeService
import SimulatedMachine
package import Vocabulary

/// One mount on one simulated node. Engine-bound.
package final class SimulatedNode {
    package let slot: SlotIndex
    package let volume: MountedVolume
    package let kernel: KernelModel
    let member: SimulatedMember
    let door: CentralLockDoor
    /// Killed: nothing of it reaches anybody any more. Its processes live on what its kernel has
    /// cached until its guardian has taken it back (`kernel.isDead`).
    package private(set) var isDead = false
    /// Lines the node would have logged.
    package private(set) var reports: [String] = []
    /// Told of every write before it begins: inode, place (nil: the end), bytes.
    var onWrite: ((InodeNumber, UInt64?, [UInt8]) -> Void)?
    /// What the comparison asked last.
    var lastLook = "nothing"
    /// Why the node withdrew, if it did although nobody had killed it.
    package private(set) var withdrawal: String?
    /// Delivered when it withdraws, if somebody expects that.
    var whenWithdrawn: Outcome<Void>?
    /// Its way to the disk fails, or has failed once: programs are told so before the node withdraws.
    var hasFailingDisk = false
    private var writesAtWithdrawal: Int?
    /// A write was begun after the node had withdrawn (MountedVolume V4).
    var wroteAfterWithdrawal: Bool {
        writesAtWithdrawal.map { member.host.writesBegun > $0 } ?? false
    }
    private(set) var hasLeft = false

    init(
        slot: SlotIndex,
        member: SimulatedMember,
        volume: MountedVolume,
        kernel: KernelModel,
        door: CentralLockDoor
    ) {
        self.slot = slot
        self.member = member
        self.volume = volume
        self.kernel = kernel
        self.door = door
        volume.kernel = kernel
        member.runtime.onReport = { [weak self] line in
            if let self, !self.isDead, !self.hasLeft { self.reports.append(line) }
        }
        member.runtime.onFailure = { [weak self] line in
            guard let self, !self.isDead, !self.hasLeft else { return }
            self.withdrawal = line
            self.writesAtWithdrawal = self.member.host.writesBegun
            self.whenWithdrawn?.deliver(())
        }
    }

    /// The mount's engine.
    package var engine: Engine { member.engine }

    /// The process dies: no request of the kernel is answered, no message leaves, no request of the
    /// disk begins.
    func kill() {
        isDead = true
        kernel.daemonDied()
        door.die()
        volume.withdraw("killed")
    }

    /// What its lock manager did must follow from what its flight recorder kept.
    func checkRecording() throws(SimulationFailure) {
        let outcome: FlightOutcome
        do throws(FlightError) {
            outcome = try FlightRecording(member.lockNode.recording).replay()
        } catch {
            throw SimulationFailure("\(kernel.name): its recording \(error)")
        }
        guard outcome == .same || outcome == .notWhole else {
            throw SimulationFailure("\(kernel.name): a replay of its recording ends as \(outcome)")
        }
    }

    /// Goes in order, after the volume was stopped.
    func leave() {
        hasLeft = true
        door.die()
        kernel.die()
    }
}
