package dev.externalip.hotrod;

import java.util.Map;

import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;
import io.netty.handler.codec.dns.DatagramDnsQuery;
import io.netty.handler.codec.dns.DatagramDnsResponse;
import io.netty.handler.codec.dns.DefaultDnsRawRecord;
import io.netty.handler.codec.dns.DnsQuestion;
import io.netty.handler.codec.dns.DnsRecordType;
import io.netty.handler.codec.dns.DnsSection;
import io.netty.util.NetUtil;

/**
 * Answers a resolver's questions for names that the map knows: no server outside does. The address is nobody's (RFC 5737,
 * RFC 3849), because where a connection goes is decided by the name, when it is made ({@link AddressMap#external}): so it
 * does not matter for how long the resolver keeps the answer. Other questions go their way.
 */
final class MappedNames extends ChannelOutboundHandlerAdapter {
    private static final Map<DnsRecordType, String> NOBODY = Map.of(DnsRecordType.A, "192.0.2.1", DnsRecordType.AAAA, "2001:db8::1");

    private final AddressMap map;

    MappedNames(AddressMap map) {
        this.map = map;
    }

    @Override
    public void write(ChannelHandlerContext ctx, Object message, ChannelPromise promise) {
        if (!(message instanceof DatagramDnsQuery query) || !map.knows(name(query))) {
            ctx.write(message, promise);
            return;
        }
        DatagramDnsResponse answer = answer(query);
        query.release();
        promise.trySuccess();
        // after whoever asked has seen that the question went out
        ctx.executor().execute(() -> ctx.pipeline().fireChannelRead(answer));
    }

    private static String name(DatagramDnsQuery query) {
        DnsQuestion question = query.recordAt(DnsSection.QUESTION);
        return question.name().substring(0, question.name().length() - 1); // a dot ends it
    }

    private static DatagramDnsResponse answer(DatagramDnsQuery query) {
        DnsQuestion question = query.recordAt(DnsSection.QUESTION);
        var answer = new DatagramDnsResponse(query.recipient(), query.sender(), query.id());
        answer.addRecord(DnsSection.QUESTION, question);
        String nobody = NOBODY.get(question.type());
        if (nobody != null) {
            byte[] address = NetUtil.createByteArrayFromIpAddressString(nobody);
            answer.addRecord(DnsSection.ANSWER, new DefaultDnsRawRecord(question.name(), question.type(), 0, Unpooled.wrappedBuffer(address)));
        }
        return answer;
    }
}
