// LockCacheTests
