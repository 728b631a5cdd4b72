"""What a GPU does with the networks of `teachers` and `student`, measured on arrays: no decoding, no Ray, no corpus."""
