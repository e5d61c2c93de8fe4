"""What turns backbone features into class logits."""
