"""Every error that this project raises on purpose has one root; its text is one or two lines for the user.

    ConcordError
      MissingExtra           a package that an extra brings and that is not installed
      OptionError            options for buckets that are invalid, or secrets on a command line
      StoreError             a store, a file or a bucket that cannot be read or written
        Changed              another process has changed the object in the bucket
        Outside              a name that leads out of the store
        Held                 another driver has the store
        Lost                 the lease on the store went to another driver
        Damaged              the inventory of a store does not agree with its files
        Refused              an output that would replace an unrelated file
        NoClip               a number of a clip that a store does not have
        UnknownClip          an id of a clip that a store does not have
      Broken                 a group of a store whose files do not fit together
      Damage                 a chunk or shard whose bytes do not fit its metadata
      TeacherError           a teacher that cannot be loaded or run
        ArraysError          arrays from a file that teachers cannot use
        WeightsError         weights that are missing or cannot be fetched
          OtherWeights       weights with another checksum than expected
      NoFaceError            a clip in which no face was found
        MouthOnly            a clip that looks like a mouth crop
      ManifestError          a list of clips, or a row of one, that cannot be used
      NoSpeech               a clip in which too little is spoken to be forged
      NoDonor                a forgery that needs another clip, and there is none
      UsageError             a request that cannot be fulfilled; nothing was changed
      RunError               a run that failed after it began to write
      NoCluster              a Ray cluster that does not answer
      MediaError             a media file that cannot be used
      DeviceError            a GPU that no longer works
      ChildLost              a child process that died or took too long
      Elsewhere              the cause of an error in a child process, as text
      InputError             arrays that a student cannot use
      ConfigError            a configuration of training that cannot be used
      CheckpointError        a checkpoint or detector that cannot be used
      SaveError              a checkpoint that could not be written
      HubError               a Hub that gives or takes no detector
      SplitError             a list of splits that cannot be used
      ScoreError             scores of a student that are not finite
      TrainingFailed         a run of training that failed after it began
        Alone                in one of its processes alone
      Diverged               training whose loss or weights are no longer finite
      ExperimentError        an experiment that cannot be made from these stores or options
        Interrupted          training for an experiment that a signal stopped
      Unusable               a video that gave no evidence

Each class is defined beside the code that raises it. `exit_code` is the command's exit code if the error is not
handled: 2 if nothing was changed, 1 if the run itself failed.
"""


class ConcordError(Exception):
    """`str(error)` says what happened, to which clip or file, and what to do."""

    exit_code = 2
