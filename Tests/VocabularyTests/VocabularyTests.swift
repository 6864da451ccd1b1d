// VocabularyTests
