// swift-tools-version: 6.2
// The architecture, bottom layer first. A target uses only targets written above it, in one of
// three grades: `pure` holds values (no async, no OS, no clock, no dice); `closed` may be async and
// reaches the world only through protocols it is given; `shell` may import the operating system.
// Tests/TidyTests checks what the compiler cannot.
import PackageDescription

let common: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

func target(_ name: String, _ folder: String, _ uses: [Target.Dependency]) -> Target {
    .target(
        name: name,
        dependencies: uses,
        path: "Sources/\(folder)/\(name)",
        swiftSettings: common
    )
}

func pure(_ name: String, _ folder: String, _ uses: [Target.Dependency] = []) -> Target {
    target(name, folder, uses)
}

func closed(_ name: String, _ folder: String, _ uses: [Target.Dependency] = []) -> Target {
    target(name, folder, uses)
}

func shell(_ name: String, _ uses: [Target.Dependency] = []) -> Target {
    target(name, "Shell", uses)
}

func command(_ name: String, _ uses: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name,
        dependencies: uses,
        path: "Sources/Commands/\(name)",
        swiftSettings: common
    )
}

func yardstick(_ name: String, _ uses: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name,
        dependencies: uses,
        path: "Sources/Yardsticks/\(name)",
        swiftSettings: common
    )
}

func tests(_ name: String, _ uses: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: uses, path: "Tests/\(name)", swiftSettings: common)
}

let argumentParser = Target.Dependency.product(
    name: "ArgumentParser",
    package: "swift-argument-parser"
)
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")

let system: [Target] = [
    .systemLibrary(
        name: "CFuse3",
        path: "Sources/CSystem/CFuse3",
        pkgConfig: "fuse3",
        providers: [.apt(["libfuse3-dev"])]
    ),
    .target(name: "CLinux", path: "Sources/CSystem/CLinux"),
    .target(name: "CChecksum", path: "Sources/CSystem/CChecksum"),
    .target(name: "CProbes", path: "Sources/CSystem/CProbes"),
    .target(name: "CCorosync", path: "Sources/CSystem/CCorosync"),
]

let layers: [Target] = [
    // Words every layer uses: typed numbers, lock modes, resource names, errors, seeded dice.
    pure("Vocabulary", "Base"),
    // The engine: one actor per mount on an injected executor; timers and waiting.
    closed("Execution", "Base", ["Vocabulary", "CProbes", deque]),

    // Disk: structures and bytes; what a device promises; transactions and replay.
    pure("DiskFormat", "Disk", ["Vocabulary", "CChecksum"]),
    closed("BlockIO", "Disk", ["Vocabulary"]),
    closed("Journaling", "Disk", ["Vocabulary", "Execution", "DiskFormat", "BlockIO"]),

    // Locks: the distributed lock manager; the lock that protects a cache.
    pure("LockCore", "Locks", ["Vocabulary"]),
    pure("LockCache", "Locks", ["Vocabulary"]),

    // Cluster: who is in; messages and bytes; what drives the cores on one node.
    pure("Membership", "Cluster", ["Vocabulary"]),
    pure("GroupAgreement", "Cluster", ["Vocabulary", "Membership"]),
    pure("Fencing", "Cluster", ["Vocabulary"]),
    pure("ClusterWire", "Cluster", ["Vocabulary", "LockCore", "Membership"]),
    // What administrators ask of the lock managers, and how the answers are put together.
    pure("LockReports", "Cluster", ["Vocabulary", "LockCore", "LockCache"]),
    closed(
        "NodeService",
        "Cluster",
        [
            "Vocabulary", "Execution", "LockCore", "LockCache", "Membership", "ClusterWire",
            "CChecksum",
        ]
    ),

    // Files: the store with locks already held; the operations that take the locks in the one
    // order.
    closed(
        "FileStore",
        "Files",
        ["Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling"]
    ),
    closed(
        "FileSystem",
        "Files",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling", "FileStore",
            "LockCache", deque,
        ]
    ),

    // One node of a cluster: lock manager, recovery and volume, whoever brings it views.
    closed(
        "ClusterNode",
        "Cluster",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling", "LockCore",
            "LockCache", "NodeService", "FileSystem",
        ]
    ),

    // Volume: making and checking a file system nobody has mounted.
    closed("VolumeMaking", "Volume", ["Vocabulary", "DiskFormat", "BlockIO"]),
    closed("VolumeChecking", "Volume", ["Vocabulary", "DiskFormat", "BlockIO", "Journaling"]),
    // Looking at a volume, sound or damaged, mounted or not; its metadata in a file.
    closed(
        "VolumeInspection",
        "Volume",
        ["Vocabulary", "DiskFormat", "BlockIO", "Journaling", "VolumeChecking"]
    ),

    // The same of a mounted volume, one structure at a time, each under its own lock.
    closed(
        "VolumeScrubbing",
        "Volume",
        ["Vocabulary", "Execution", "DiskFormat", "BlockIO", "FileSystem", "VolumeChecking"]
    ),

    // Simulation: lock managers alone, by seed and in every order; one machine's executor, clock
    // and disk by seed; every crash of short workloads on one node; then whole clusters, with a
    // network and a model of the kernel's caches.
    closed("LockWorld", "Simulation", ["Vocabulary", "LockCore", "ClusterWire"]),
    closed("SimulatedMachine", "Simulation", ["Vocabulary", "Execution", "BlockIO"]),
    closed("CentralLocking", "Simulation", ["Vocabulary", "Execution", "LockCache"]),
    closed(
        "CrashWorld",
        "Simulation",
        [
            "Vocabulary", "Execution", "SimulatedMachine", "CentralLocking", "DiskFormat",
            "BlockIO",
            "Journaling", "LockCache", "FileSystem", "VolumeMaking", "VolumeChecking",
        ]
    ),
    // What bytes from a disk or a peer may do to whoever reads them.
    closed(
        "Fuzzing",
        "Simulation",
        [
            "Vocabulary", "Execution", "SimulatedMachine", "DiskFormat", "BlockIO", "Journaling",
            "Membership", "ClusterWire", "LockReports", "NodeService", "FileSystem",
            "VolumeMaking", "VolumeChecking", "CrashWorld",
        ]
    ),
    closed(
        "SimulatedWorld",
        "Simulation",
        [
            "Vocabulary", "Execution", "SimulatedMachine", "CentralLocking", "DiskFormat",
            "BlockIO", "Journaling", "LockCore", "LockCache", "Membership", "ClusterWire",
            "NodeService", "ClusterNode", "FileStore",
            "FileSystem", "VolumeMaking", "VolumeChecking", "VolumeScrubbing",
        ]
    ),

    // The stress test of mounted file systems: what is written, what is claimed, what may be seen.
    pure("StressJudging", "Stress", ["Vocabulary", "CChecksum"]),

    // Shell: the only folder that may import the operating system.
    shell("LinuxSystem", ["Vocabulary", "Execution", "CLinux", deque]),
    shell("LinuxBlockIO", ["Vocabulary", "BlockIO", "LinuxSystem", "CLinux"]),
    shell("Transport", ["Vocabulary", "Membership", "LinuxSystem", "CLinux", nioCore, nioPosix]),
    // Its agents and their coordinator. They know nothing of Lockstep: any file system will do.
    shell("StressAgents", ["Vocabulary", "StressJudging", "LinuxSystem", "CLinux"]),
    shell(
        "HostCluster",
        ["Vocabulary", "Membership", "LinuxSystem", "CLinux", "DiskFormat", "BlockIO"]
    ),
    shell(
        "CorosyncCluster",
        ["Vocabulary", "Membership", "GroupAgreement", "LinuxSystem", "CLinux", "CCorosync"]
    ),
    shell(
        "FuseServer",
        ["Vocabulary", "Execution", "FileSystem", "LinuxSystem", "CFuse3", "CLinux", deque]
    ),
]

let commands: [Target] = [
    command(
        "mkfs",
        [
            "Vocabulary", "DiskFormat", "BlockIO", "VolumeMaking", "LinuxSystem", "LinuxBlockIO",
            "HostCluster", "CLinux", argumentParser,
        ]
    ),
    command(
        "fsck",
        [
            "Vocabulary", "DiskFormat", "BlockIO", "VolumeChecking", "LinuxSystem", "LinuxBlockIO",
            "HostCluster", "CLinux", argumentParser,
        ]
    ),
    command(
        "mount",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling", "FileStore",
            "FileSystem", "LockCore", "LockCache", "Membership", "ClusterWire", "LockReports",
            "NodeService", "ClusterNode", "LinuxSystem", "LinuxBlockIO", "Transport",
            "HostCluster", "FuseServer", "CLinux", "VolumeChecking", "VolumeScrubbing",
        ]
    ),
    command(
        "umount",
        ["Vocabulary", "DiskFormat", "Membership", "LinuxSystem", "HostCluster", "CLinux"]
    ),
    command(
        "lockstep",
        [
            "Vocabulary", "DiskFormat", "BlockIO", "LockReports", "NodeService",
            "VolumeInspection", "LinuxSystem", "LinuxBlockIO", "HostCluster", "CLinux",
            argumentParser,
        ]
    ),
    // One node as a process, for the tests of HostCluster and Transport. Not a product.
    command(
        "hostclusterprobe",
        [
            "Vocabulary", "DiskFormat", "Membership", "LinuxSystem", "Transport", "HostCluster",
            "CLinux",
        ]
    ),
    // A process in a group of corosync's, for the tests of the agreement between hosts. Not a product.
    command(
        "groupprobe",
        ["Vocabulary", "Membership", "GroupAgreement", "LinuxSystem", "CorosyncCluster"]
    ),
    command(
        "simulate",
        ["Vocabulary", "Execution", "CrashWorld", "SimulatedWorld", "LinuxSystem", argumentParser]
    ),
    command("locksim", ["Vocabulary", "LockWorld", argumentParser]),
    command(
        "stress",
        ["Vocabulary", "LinuxSystem", "StressJudging", "StressAgents", argumentParser]
    ),
]

let yardsticks: [Target] = [
    .executableTarget(
        name: "nullfuse",
        dependencies: ["CFuse3"],
        path: "Sources/Yardsticks/nullfuse",
        cSettings: [.unsafeFlags([], .when(configuration: .release))]
    ),
    .executableTarget(name: "pingpong", path: "Sources/Yardsticks/pingpong"),
    // Races on purpose: see tools/races. Not a product.
    yardstick("racer", ["Execution", "LinuxSystem"]),
    // Puts defects into a copy of the lock manager: see tools/mutations. Not a product.
    yardstick("mutants", []),
    yardstick(
        "bench",
        [
            "Vocabulary", "Execution", "LockCore", "LockCache", "NodeService", "LinuxSystem",
            "Transport", "CLinux", argumentParser,
        ]
    ),
]

let testTargets: [Target] = [
    tests("TidyTests", []),
    tests("VocabularyTests", ["Vocabulary"]),
    tests("DiskFormatTests", ["Vocabulary", "DiskFormat", "CChecksum"]),
    tests(
        "JournalingTests",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling", "LockCache",
            "FileSystem", "SimulatedMachine",
        ]
    ),
    tests("LockCoreTests", ["Vocabulary", "LockCore", "ClusterWire", "LockWorld"]),
    tests(
        "NodeServiceTests",
        [
            "Vocabulary", "Execution", "LockCore", "LockCache", "ClusterWire", "NodeService",
            "SimulatedMachine",
        ]
    ),
    tests("CorosyncClusterTests", ["LinuxSystem", "CorosyncCluster", "groupprobe"]),
    tests("FencingTests", ["Vocabulary", "Fencing"]),
    tests("GroupAgreementTests", ["Vocabulary", "Membership", "GroupAgreement"]),
    tests("LockReportsTests", ["Vocabulary", "LockCore", "LockCache", "LockReports"]),
    tests("LockCacheTests", ["Vocabulary", "LockCache"]),
    tests("FileSystemTests", ["Vocabulary", "LockCache", "FileSystem"]),
    tests(
        "FileStoreTests",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "Journaling", "FileStore",
            "VolumeMaking", "VolumeChecking", "SimulatedMachine",
        ]
    ),
    tests(
        "VolumeTests",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "VolumeMaking", "VolumeChecking",
            "SimulatedMachine", "CrashWorld", "Journaling", "FileSystem", "VolumeScrubbing",
            "VolumeInspection",
        ]
    ),
    tests("StressJudgingTests", ["Vocabulary", "StressJudging"]),
    tests("CrashWorldTests", ["Vocabulary", "CrashWorld"]),
    tests("FuzzingTests", ["Vocabulary", "Fuzzing"]),
    tests(
        "SimulationTests",
        [
            "Vocabulary", "Execution", "DiskFormat", "BlockIO", "VolumeMaking", "FileStore",
            "FileSystem",
            "LockCache", "SimulatedMachine", "SimulatedWorld", "VolumeChecking", "Journaling",
        ]
    ),
    tests(
        "HostClusterTests",
        [
            "Vocabulary", "Execution", "Membership", "DiskFormat", "hostclusterprobe",
            "LinuxSystem", "LinuxBlockIO", "BlockIO", "Transport", "HostCluster", "CLinux",
        ]
    ),
    tests(
        "FuseServerTests",
        [
            "Vocabulary", "Execution", "FileSystem", "SimulatedMachine", "SimulatedWorld",
            "LinuxSystem", "FuseServer", "CFuse3", "CLinux",
        ]
    ),
    tests("LinuxSystemTests", ["Vocabulary", "Execution", "LinuxSystem", "CLinux"]),
    tests(
        "Mounted",
        ["Vocabulary", "LinuxSystem", "CLinux", "FileSystem", "SimulatedWorld"]
    ),
]

let package = Package(
    name: "lockstep",
    products: [
        .executable(name: "mkfs.lockstep", targets: ["mkfs"]),
        .executable(name: "mount.lockstep", targets: ["mount"]),
        .executable(name: "umount.lockstep", targets: ["umount"]),
        .executable(name: "fsck.lockstep", targets: ["fsck"]),
        .executable(name: "lockstep", targets: ["lockstep"]),
        .executable(name: "lockstep-simulate", targets: ["simulate"]),
        .executable(name: "lockstep-lockcheck", targets: ["locksim"]),
        .executable(name: "lockstep-stress", targets: ["stress"]),
        .executable(name: "lockstep-bench", targets: ["bench"]),
        .executable(name: "lockstep-null-fuse", targets: ["nullfuse"]),
        .executable(name: "lockstep-ping-pong", targets: ["pingpong"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: system + layers + commands + yardsticks + testTargets
)
