"""vhost: the back end of a vhost-user device with one queue, whatever the device is for.

:mod:`.message` frames the messages of the protocol, :mod:`.memory` maps the guest's memory,
:mod:`.ring` takes requests from its virtqueue and gives answers, and :mod:`.device` does what the
VMM says.  Only :mod:`.message` sees a socket; nothing here waits, or knows what is in a request.
"""
