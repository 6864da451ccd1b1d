// LockCache
