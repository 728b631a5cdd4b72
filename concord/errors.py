"""Every error that this project raises on purpose has one root; its text is one or two lines for a person.

    ConcordError
      OptionError            options for buckets that cannot be taken, or that are secrets in the open
      StoreError             a store, a file or a bucket that cannot be read or written as it is
        Changed              somebody else changed the object in the bucket meanwhile
        Outside              a name that leads out of the store
        Held                 another driver has the store
        Lost                 the lease on the store went to another driver
        Damaged              the inventory of a store does not agree with its files
        Refused              an output that would replace something that is not ours
      Broken                 a group of a store whose files do not fit together
      Damage                 a chunk or shard whose bytes do not fit its metadata
      TeacherError           a teacher that cannot be loaded or run
        ArraysError          arrays from a file that no teacher can take
        WeightsError         weights that are missing or cannot be fetched
          OtherWeights       weights with another checksum than expected
      NoFaceError            a clip in which no face was found
      ManifestError          a list of clips, or a row of one, that cannot be used
      UsageError             a request that cannot be carried out; nothing was changed
      RunError               a run that failed after it began to write
      MediaError             a media file that cannot be used
      DeviceError            a GPU that no longer works
      ChildLost              a child process that died or took too long
      Elsewhere              the cause of an error in a child process, as text
      InputError             arrays that a student cannot take
      ConfigError            a configuration of training that cannot be used
      CheckpointError        a checkpoint or detector that cannot be used
      SaveError              a checkpoint that could not be written
      SplitError             a list of splits that cannot be used
      ScoreError             answers of a student that are not finite
      Diverged               training whose loss or weights are no longer finite
      Unusable               a video that gave no evidence

Each class is defined beside the code that raises it. `exit_code` is what a command ends with when nobody handles the error: 2
where nothing was changed, 1 where the run itself failed.
"""


class ConcordError(Exception):
    """What happened, to which clip or file, and what to do, in the words of `str(error)`."""

    exit_code = 2
