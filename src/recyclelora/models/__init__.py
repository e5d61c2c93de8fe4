"""What is trained and scored: a backbone, a decoder, and the segmenter that holds both."""
