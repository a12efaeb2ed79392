"""The log of a call: appended under a fence, read in order, kept close to those who may have to go on from it."""
