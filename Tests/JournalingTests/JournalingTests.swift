// JournalingTests
