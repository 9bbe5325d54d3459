"""Every bound of the system, in one place, with its unit in its name.

A bound is a promise: nothing in hiersched queues, retries, buffers or waits without one of these. Relations between
bounds are asserted at import, so that a change that breaks one is noticed at once and not under load.
"""

KIB = 1024
MIB = 1024 * KIB

# The tree.
FANOUT_MAX = 64  # children of one scheduler; keeps every mask, queue and reply table small
LEAF_ENGINES_MAX = 64  # engines of one leaf scheduler: the serial part of every collective
ENGINES_MAX = 1_000_000
CLIENTS_MAX = 64  # clients of one root

# Frames. A frame above FRAME_BYTES_MAX is refused by the receiver before it is read.
HEADER_BYTES_MAX = 16 * MIB
FRAME_BYTES_MAX = 4 * 1024 * MIB
FRAMES_MAX = 2 * 1_048_576  # frames of one message: two large ones from each engine
FRAMES_INLINED_MAX = 256  # of them, how many may ride with the message in its first part
INLINED_FRAME_BYTES_MAX = 8 * KIB  # and how large each of these may be
INLINE_BYTES_MAX = 64 * KIB  # a buffer at least this large travels as a content-addressed blob
RESULT_GIVEN_BYTES_MAX = 8 * KIB  # a result up to this large rides in the task that takes it as an argument
GIVEN_BYTES_MAX = 1 * MIB  # of such results in one task; it asks for the others
RESULTS_HELD_BYTES_MAX = 256 * MIB  # larger results that an engine keeps for tasks that take them
COALESCE_BYTES_MAX = 8 * KIB  # replies smaller than this are joined into one frame at the leaf

# Queues.
TASKS_IN_FLIGHT_PER_CLIENT_MAX = 20_000  # what a client may have at the root; the rest waits in the client
TASKS_PER_MESSAGE_MAX = 2_048  # tasks or results
PAYLOAD_BYTES_PER_MESSAGE_MAX = 4 * MIB  # of their payloads together, unless one alone is larger
REQUESTS_OPEN_MAX = 100_000  # collectives a scheduler holds open at one time
INQUIRIES_OPEN_MAX = 1_000  # of each kind: orders, surveys and questions that a scheduler holds open at one time
EVENTS_PER_STEP_MAX = 256  # messages drained from one socket before effects are flushed
LINK_MESSAGES_MAX = 100_000  # high-water mark of one link, messages
OUTPUT_BYTES_MAX = 64 * MIB  # printed and displayed by one call; more is dropped, and that is said
OUTPUT_PIECE_BYTES_MAX = 64 * KIB  # printed text that is sent without waiting for more
OUTPUT_WAITING_BYTES_MAX = 4 * MIB  # of output that waits in a scheduler
OUTPUT_FLUSH_S = 0.05  # printed text waits this long for more, on each level
ERROR_TEXT_CHARS_MAX = 64 * KIB  # of the text of an exception, and of each entry of its traceback
PARTIAL_REPLY_S = 0.1  # answers to a call wait this long for the others, on each level, before they go ahead
CHILDREN_MAX = 4 * 64  # of one scheduler, with those it took over from schedulers that were lost
KEPT_BYTES_MAX = 64 * MIB  # answers that one process keeps until the root is known to have them
ACK_MESSAGES_MAX = 64  # answers of one child that the root takes in before it acknowledges all
ACK_BYTES_MAX = 4 * MIB  # of the payloads of all answers that it takes in before that
SESSIONS_DETACHED_MAX = 16  # sessions without their clients
SESSION_BYTES_MAX = 256 * MIB  # results that the root keeps for one of them
SESSION_ANSWERS_MAX = 100_000  # of them; as many pieces of output
ENDED_BYTES_MAX = 64 * MIB  # results of one client that the root remembers until they have been seen
RETRIES_MAX = 1_000  # of one task
DEPENDENCIES_MAX = 100_000  # tasks that one task waits for
LEDGER_ENTRIES_MAX = 1_000_000  # requests of a client of which it remembers how they ended
RESULTS_UNSEEN_MAX = 1_000  # results that a client takes in before it tells the root that it has
RESTARTS_MAX = 5  # replacements of one engine within RESTART_PERIOD_S

# Blobs. Each store drops the least recently used above its bound; what it dropped it can ask for again.
BLOB_STORE_BYTES_MAX = 1024 * MIB  # of one scheduler
BLOB_ENGINE_BYTES_MAX = 256 * MIB  # of one engine
BLOBS_HELD_MAX = 65_536  # digests remembered per child
FUNCTIONS_CACHED_MAX = 1_024  # packed functions per client, and unpacked ones per engine
FUNCTIONS_CACHED_BYTES_MAX = 64 * MIB  # of those functions, as packed

# Time.
BEAT_PERIOD_S = 2.0  # between schedulers
LOST_AFTER_S = 3 * BEAT_PERIOD_S  # three missed beats
LINK_DELAY_S_MAX = 1.0
START_TIMEOUT_S = 60.0  # from asking for a process to its hello
START_LOOK_PERIOD_S = 0.02  # between two looks whether engines are still being started
CONNECTION_LOOK_PERIOD_S = 0.02  # between two looks whether a connection file has come
CONNECT_TIMEOUT_S = 10.0  # from a client's hello to its welcome
LAST_WORDS_S = 0.2  # that a client which leaves waits for what it said last to be sent
STOP_TIMEOUT_S = 5.0  # from asking a process to end to killing it
RESTART_PERIOD_S = 60.0
MAIL_TIMEOUT_S = 5.0  # an engine that the doorbell rang for looks out for what it announces
BLOB_TIMEOUT_S = 30.0  # from asking a parent for a blob to giving the call up

# Batching of tasks: a child holds at most about this much work ahead of what it is running.
WINDOW_S = 0.005
WINDOW_TASKS_MAX = 1_024
RESULTS_FLUSH_S = 0.001  # an engine sends the results it has at least this often, between tasks
FLUSH_PERIOD_S = 0.001  # a client sends tasks at least this often while it submits

# Maps. A chunk is worth about MAP_CHUNK_S of work: far above what sending it costs, far below what a user notices.
MAP_CHUNK_S = 0.015
MAP_CHUNK_S_MIN = 0.001  # towards the end chunks shrink to even out, down to this
MAP_CHUNK_ITEMS_MAX = 65_536
MAP_CHUNK_GROWTH_MAX = 32  # times the largest chunk measured so far
MAP_CHUNKS_PER_ENGINE_MAX = 2  # one runs, one waits next to it
MAP_CHUNKS_OUTSTANDING_MAX = 4_096  # of one map whose chunk size the user chose
CANCEL_TIMEOUT_S = 0.05  # from asking to cancel a task to taking it as running
INTERRUPT_TIMEOUT_S = 1.0  # from asking to interrupt a call to taking it as one that goes on
INTERRUPT_HELD_S_MAX = 1.0  # a Ctrl-C waits so long for a safe point; then a second one strikes wherever it may

# What views remember and wait for at a prompt.
CALLS_RECALLED_MAX = 10_000  # ended calls of one view, or of a client, whose ids are still listed
COMPLETION_TIMEOUT_S = 0.5  # for an engine's completions of what is being typed
DASK_TIMEOUT_S = 30.0  # from asking a dask scheduler or worker to start or to end

# What the door to ipyparallel's clients remembers for them, beside what its database does.
RECORDS_PENDING_MAX = 200_000  # requests that have not ended; of older ones only the database knows
RECORDS_UNSAVED_MAX = 1_024  # requests that ended and are not written to the database yet
RECORDS_UNSAVED_BYTES_MAX = 64 * MIB  # of the payloads of what is not written yet
RECORDS_ENDED_MAX = 10_000  # requests that ended and whose ids are remembered
RECORDS_PER_QUERY_MAX = 500  # ids in one query: SQLite takes no deeper expressions than 1000
RECORDS_SAVE_PERIOD_S = 1.0  # a database on disk is written to at least this often
RECORDS_LOCK_TIMEOUT_S = 0.05  # for somebody else who has the same database open
RECORD_OUTPUT_CHARS_MAX = MIB  # of what one request printed, of each stream; the rest is not recorded, and that is said

# ipyparallel's clients and engines.
OLD_SIGNATURES_MAX = 65_536  # of messages, remembered so that none is heard twice
OLD_TASKS_RECALLED_MAX = 200_000  # ids of tasks that others may name as dependencies
OLD_WITHDRAWN_MAX = 10_000  # ids of requests that were withdrawn before they came
OLD_MESSAGES_MAX = 1_000_000  # that wait for one peer who does not read; more are dropped
GUEST_LOOK_PERIOD_S = 0.2  # between two looks whether an engine that has registered can be reached
GUEST_LEAVE_TIMEOUT_S = 2.0  # from telling an engine to end to leaving it alone
GUEST_OUTPUT_TIMEOUT_S = 1.0  # from an engine's answer to taking it as all that it says
OLD_DEPARTURE_DELAY_S = 0.02  # of the news that an engine is gone, so that what it owed is answered before

# What users see. A wait is shown when it lasts; a bar is drawn again at most this often.
PROGRESS_AFTER_S = 1.0
PROGRESS_PERIOD_S = 0.1

assert LOST_AFTER_S > BEAT_PERIOD_S + LINK_DELAY_S_MAX
assert FRAMES_MAX >= 2 * ENGINES_MAX
assert FRAMES_INLINED_MAX * INLINED_FRAME_BYTES_MAX < HEADER_BYTES_MAX // 2
assert COALESCE_BYTES_MAX < INLINE_BYTES_MAX < HEADER_BYTES_MAX < FRAME_BYTES_MAX
assert PAYLOAD_BYTES_PER_MESSAGE_MAX + FRAMES_INLINED_MAX * INLINED_FRAME_BYTES_MAX < HEADER_BYTES_MAX // 2
assert FANOUT_MAX**3 * LEAF_ENGINES_MAX >= ENGINES_MAX, "three levels of schedulers reach every engine"
assert TASKS_PER_MESSAGE_MAX <= TASKS_IN_FLIGHT_PER_CLIENT_MAX
assert MAP_CHUNK_S_MIN < MAP_CHUNK_S
assert MAP_CHUNKS_OUTSTANDING_MAX <= TASKS_IN_FLIGHT_PER_CLIENT_MAX
assert CHILDREN_MAX >= FANOUT_MAX + LEAF_ENGINES_MAX, "a scheduler can take over a leaf's engines"
assert ACK_BYTES_MAX < KEPT_BYTES_MAX
assert BLOB_ENGINE_BYTES_MAX <= BLOB_STORE_BYTES_MAX
