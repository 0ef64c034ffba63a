from rig import Rig


async def test_a_code_is_sent_followed_and_verified(rig: Rig) -> None:
    sent = await rig.send(workflow="sms")
    (sms,) = rig.transport.submissions
    await rig.octopush_receipt(sms, "DELIVERED")
    assert rig.states(sent["verification_id"]) == ["sms:DELIVERED"]
    answer = await rig.verify(sent["verification_id"], sms.code)

    assert answer.status_code == 200
