// LockCoreTests
