"""The columns that every feature table has beside its features and label."""

ROW_ID, EVENT_TIME, LABEL_TIME = "row_id", "event_time", "label_time"
RESERVED = (ROW_ID, EVENT_TIME, LABEL_TIME)
