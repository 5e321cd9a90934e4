"""The limits of the app: numbers alone."""

from x2vlm.serving import usable_cores
from x2vlm.settings import Settings

UPLOAD_MEGABYTES = 200  # of one file
UPLOADS_MEGABYTES = 1024  # of all files of one request
BODY_MEGABYTES = 1  # of a request that is no upload
BODY_VALUES = 20_000  # in its lists and objects; 500,000 in a megabyte would take a second to read
DISPLAY_SIDE = 960  # longest side in pixels of what the page shows
FRAME_SIDE = 640  # the same for frames of a video
FRAMES = 32
COLLECTION = 200  # images
COLLECTION_MEGABYTES = 200  # of the images of a zip together
BATCH = 8  # images of a collection between two turns of others
TILE_SIDE = 120
PHRASES = 10
TEXTS = 20
CHOICES = 200
LETTERS = 2000
BEAMS = 10
CAPTIONS = 5
NEW_TOKENS = 100
TOP_ANSWERS = 5
ABSENT_BELOW, FOUND_FROM = Settings.absent, Settings.present  # until a model brings its own

QUEUE = 32
# Events let in at a time: at most one a core is at the model while others decode their file.
AT_ONCE = usable_cores() + 2
WAIT_SECONDS = 120  # a job that waited longer is not begun: its visitor has left or asked again
MODEL_SECONDS = 120  # a call is stopped after it; until it does stop, the server is not ready
HEALTH_CHECK_SECONDS = 60  # between two health checks of the default model
DRAIN_SECONDS = 25
JOBS_A_SESSION = 5  # waiting and at work
JOBS_A_MINUTE = 20  # of one address, on a public host
SESSIONS = 200  # visitors whose results are kept
UNREAD_RESULTS = 20_000  # of sessions that have not fetched theirs; dropped after a minute or two
SCENES = 8  # encoded pictures kept for the next question
TEMP_SECONDS = 3600
TEMP_GIGABYTES = 2
