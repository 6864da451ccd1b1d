// One node of a simulated cluster: the production file system on a simulated disk handle, with a lock service and a
// model of the kernel in front of it.

import BlockIO
import DiskFormat
package import Execution
package import FileSystem
import Journaling
import LockCache
package import SimulatedMachine
package import Vocabulary

/// One mount on one simulated node. Engine-bound.
package final class SimulatedNode {
    package let slot: SlotIndex
    package let engine: Engine
    package let host: SimulatedHost
    package let volume: MountedVolume
    package let kernel: KernelModel
    let journal: Journal
    let door: any SimulatedLockDoor
    /// Killed: nothing of it reaches anybody any more.
    package private(set) var isDead = false
    /// Lines the node would have logged.
    package private(set) var reports: [String] = []
    /// What the comparison asked last.
    var lastLook = "nothing"
    /// Why the node withdrew, if it did although nobody had killed it.
    package private(set) var withdrawal: String?

    init(
        slot: SlotIndex, engine: Engine, host: SimulatedHost, volume: MountedVolume,
        kernel: KernelModel, journal: Journal, door: any SimulatedLockDoor
    ) {
        self.slot = slot
        self.engine = engine
        self.host = host
        self.volume = volume
        self.kernel = kernel
        self.journal = journal
        self.door = door
        volume.kernel = kernel
        volume.onReport = { [weak self] line in
            if let self, !self.isDead { self.reports.append(line) }
        }
        volume.onWithdraw = { [weak self] line in
            if let self, !self.isDead { self.withdrawal = line }
        }
    }

    /// The process dies: no request of the kernel is answered, no message leaves, nothing more is written (fenced).
    package func kill() {
        isDead = true
        host.cutOff()
        door.die()
        kernel.die()
        volume.withdraw("killed")
    }
}

/// What a simulated node needs of its way to the lock manager.
protocol SimulatedLockDoor: LockService {
    /// Nothing reaches this node any more, and nothing comes from it.
    func die()
}

extension CentralLockDoor: SimulatedLockDoor {}
