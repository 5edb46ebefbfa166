"""Checks a bounce as a mail program reads it (RFC 3464).

Usage: bounce.py FILE RELAY SENDER RECIPIENT STATUS REPLY ORIGINALLINE   (STATUS may be empty: any 5.X.X or 4.X.X)
"""
import email
import email.policy
import pathlib
import sys

path, relay, sender, recipient, status, reply, original = sys.argv[1:]


def need(what, good, got=""):
    if not good:
        sys.exit(f"{what}: {got}")


message = email.message_from_bytes(pathlib.Path(path).read_bytes(), policy=email.policy.default)
need("Content-Type", message.get_content_type() == "multipart/report", message["Content-Type"])
need("report-type", message.get_param("report-type") == "delivery-status", message["Content-Type"])
need("To", sender in message["To"], message["To"])
need("Auto-Submitted", message["Auto-Submitted"] == "auto-replied", message["Auto-Submitted"])
need("Date and Message-ID", message["Date"] and message["Message-ID"], message.keys())
parts = list(message.iter_parts())
need("three parts", len(parts) == 3, [p.get_content_type() for p in parts])
text = parts[0].get_content()
need("words for people", recipient in text and reply.split()[0] in text, text)
need("second part", parts[1].get_content_type() == "message/delivery-status", parts[1].get_content_type())
per_message, *per_recipient = parts[1].get_payload()
need("Reporting-MTA", per_message["Reporting-MTA"].replace(" ", "") == f"dns;{relay}", per_message["Reporting-MTA"])
need("one recipient", len(per_recipient) == 1, per_recipient)
fields = per_recipient[0]
need("Final-Recipient", fields["Final-Recipient"].replace(" ", "") == f"rfc822;{recipient}", fields["Final-Recipient"])
need("Action", fields["Action"] == "failed", fields["Action"])
need("Status", fields["Status"] == status if status else fields["Status"][0] in "45", fields["Status"])
need("Diagnostic-Code", fields["Diagnostic-Code"].startswith("smtp;") and reply in fields["Diagnostic-Code"], fields["Diagnostic-Code"])
need("Remote-MTA", "mx1.example" in fields["Remote-MTA"], fields["Remote-MTA"])
need("third part", parts[2].get_content_type() in ("message/rfc822", "text/rfc822-headers"), parts[2].get_content_type())
need("the original's header", original in parts[2].as_string(), parts[2].as_string()[:500])
