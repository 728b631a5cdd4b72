"""What pictures show: mouth crops, held pictures, and looks at a few moments of a clip."""
