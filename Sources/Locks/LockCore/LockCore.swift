// LockCore
