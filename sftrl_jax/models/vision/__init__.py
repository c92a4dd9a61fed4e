"""Models that read pictures: the features of a picture stand in the row of tokens, where its placeholder ids are."""
